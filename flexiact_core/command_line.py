"""What command-line trainings share: their settings, one or several processes, and the checkpoint.

With several GPUs: accelerate launch --multi_gpu --num_processes 2 -m MODULE ... The same without a GPU, to try it:
ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 -m MODULE ...
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .training import Checkpoint, Course, OnStep, StopTraining, TrainingState, follow

if TYPE_CHECKING:
    from torch.nn import Parameter

DTYPES = ("bfloat16", "float16", "float32")

# What one process does alone, such as encoding 42 000 clips, may take days; accelerate's own limit is minutes.
LONGEST_WAIT = timedelta(days=14)


def training_parser(
    description: str, result: str, *, steps: int, learning_rate: float, batch: str, batch_size: int = 1
) -> argparse.ArgumentParser:
    """A parser of the settings that all these trainings have; `result` is what they write, `batch` what one takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, required=True, help=f".safetensors file of the {result} to write")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--batch-size", type=int, default=batch_size, help=batch)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-every", type=int, default=500, help="steps between two checkpoints")
    parser.add_argument("--no-resume", action="store_true", help="start anew although a checkpoint is there")
    return parser


def add_frozen_settings(parser: argparse.ArgumentParser) -> None:
    """The settings of a training on a base that is frozen."""
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="what the base computes in")


def add_adapter_settings(parser: argparse.ArgumentParser, rank: int) -> None:
    """The settings of a training of matrices on a frozen base, from clips that are encoded once."""
    add_frozen_settings(parser)
    parser.add_argument("--cache", type=Path, help="folder for what is encoded; beside the output by default")
    parser.add_argument("--rank", type=int, default=rank)


def add_sample_settings(parser: argparse.ArgumentParser) -> None:
    """The settings of sample videos while a training runs."""
    parser.add_argument(
        "--validation", type=Path, help="CSV such as val_image.csv: a picture and its caption per line; a video of "
        "each is made while the training runs, and kept beside the output",
    )  # fmt: skip
    parser.add_argument("--sample-every", type=int, default=500, help="steps between two rounds of those videos")


def whole_disk(path: Path) -> Path:
    """The root of what a list may name: who runs a command may read what they name, anything on the list's disk."""
    return Path(path.absolute().anchor)


def use_threads(count: int) -> None:
    """Lets torch compute on the CPU with so many threads: how sums are split among them shows in their last digits."""
    import torch

    torch.set_num_threads(count)


def device_here() -> str:
    """torch's name of what this machine computes on."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class Processes:
    """The processes of one training, through accelerate: this one's device, what it says, and what it shares."""

    def __init__(self):
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        self.accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)])
        self.device = self.accelerator.device
        self.say = self.accelerator.print
        self.shard = (self.accelerator.process_index, self.accelerator.num_processes)
        self.asked_to_stop = False
        # The first of each machine does what is inside alone, and the others find it done.
        self.one_first = self.accelerator.local_main_process_first

    def train(
        self, settings: argparse.Namespace, fit: Callable[[Course], TrainingState], listeners: Sequence[OnStep] = ()
    ) -> TrainingState:
        """The state that `fit` comes to, kept beside the output; goes on from what was kept there.

        Ctrl-C, or being asked to end, stops it after the step under way. listeners hear each step in every process.
        """
        checkpoint = Checkpoint(settings.output.with_suffix(".checkpoint.safetensors"), settings.checkpoint_every)
        resumed = None if settings.no_resume else checkpoint.load()
        if resumed is not None:
            self.say(f"resuming at step {resumed.steps_done}")
        is_first = self.accelerator.is_main_process
        course = Course(
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            device=self.device,
            batch_size=settings.batch_size,
            gradient_checkpointing=self.device.type != "cpu",
            resume=resumed,
            on_step=follow(*((checkpoint.on_step,) if is_first else ()), *listeners, self._report(settings.steps)),
            share=self._average if self.shard[1] > 1 else None,
            shard=self.shard,
        )
        with self._noting_stop():
            state = fit(course)
            if is_first:
                checkpoint.save(state)
        if state.steps_done < settings.steps:
            self.say(f"stopped after step {state.steps_done} of {settings.steps}; the same command goes on from there")
        return state

    def finish(self, write: Callable[[], Path]) -> None:
        """Writes the result, in the first process alone, and ends what the processes share."""
        if self.accelerator.is_main_process:
            self.say(f"saved {write()}")
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def _report(self, steps: int) -> OnStep:
        """Says the mean loss of all processes; ends the training in all of them where any was asked to stop."""
        import torch

        def report(index: int, loss: float, take_state: Callable[[], TrainingState]) -> None:
            mine = torch.tensor([loss, float(self.asked_to_stop)], device=self.device)
            mean, stopping = self.accelerator.reduce(mine, "mean").tolist()
            self.say(f"step {index + 1}/{steps} loss {mean:.4f}", flush=True)
            if stopping:
                raise StopTraining

        return report

    def _average(self, parameters: Sequence[Parameter]) -> None:
        from torch.nn.utils import parameters_to_vector, vector_to_parameters

        # All in one: an adapter has hundreds of small ones, and each message takes its time.
        gradients = [parameter.grad for parameter in parameters]
        vector_to_parameters(self.accelerator.reduce(parameters_to_vector(gradients), "mean"), gradients)

    @contextmanager
    def _noting_stop(self) -> Iterator[None]:
        """While it lasts, the first Ctrl-C or request to end is noted only; where this process is alone, a second ends
        it at once. Of several, whoever launched them ends them if they take too long."""
        before = {}

        def note(number, frame) -> None:
            self.asked_to_stop = True
            if self.shard[1] == 1:
                signal.signal(number, before[number])

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
