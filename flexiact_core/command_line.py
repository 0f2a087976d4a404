"""What command-line trainings share: their settings, one or several processes, and the checkpoint.

With several GPUs: torchrun --nproc_per_node 2 -m MODULE ... (accelerate shares the gradients; ACCELERATE_USE_CPU=true
tries it without a GPU).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from .training import Checkpoint, Course, TrainingState, follow

DTYPES = ("bfloat16", "float16", "float32")


def training_parser(
    description: str, result: str, *, learning_rate: float, rank: int, batch: str
) -> argparse.ArgumentParser:
    """A parser of the settings that all these trainings have; `result` is what they write, `batch` what one takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, required=True, help=f".safetensors file of the {result} to write")
    parser.add_argument("--cache", type=Path, help="folder for what is encoded; beside the output by default")
    parser.add_argument("--steps", type=int, default=40000)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--batch-size", type=int, default=1, help=f"{batch} per step and process; the authors took 8")
    parser.add_argument("--rank", type=int, default=rank)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="what the base computes in")
    parser.add_argument("--checkpoint-every", type=int, default=500, help="steps between two checkpoints")
    parser.add_argument("--no-resume", action="store_true", help="start anew although a checkpoint is there")
    return parser


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

        self.accelerator = Accelerator()
        self.device = self.accelerator.device
        self.say = self.accelerator.print
        # The first of each machine does what is inside alone, and the others find it done.
        self.one_first = self.accelerator.local_main_process_first

    def train(self, settings: argparse.Namespace, fit: Callable[[Course], TrainingState]) -> TrainingState:
        """The state that `fit` comes to, kept beside the output; goes on from what was kept there."""
        import torch

        checkpoint = Checkpoint(settings.output.with_suffix(".checkpoint.safetensors"), settings.checkpoint_every)
        resumed = None if settings.no_resume else checkpoint.load()
        if resumed is not None:
            self.say(f"resuming at step {resumed.steps_done}")
        accelerator, is_first = self.accelerator, self.accelerator.is_main_process

        def report(index: int, loss: float, take_state: Callable[[], TrainingState]) -> None:
            mean = accelerator.reduce(torch.tensor(loss, device=self.device), "mean").item()
            self.say(f"step {index + 1}/{settings.steps} loss {mean:.4f}")

        course = Course(
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            device=self.device,
            batch_size=settings.batch_size,
            gradient_checkpointing=self.device.type != "cpu",
            resume=resumed,
            on_step=follow(report, checkpoint.on_step) if is_first else report,
            wrap=accelerator.prepare_model if accelerator.num_processes > 1 else None,
            shard=(accelerator.process_index, accelerator.num_processes),
        )
        state = fit(course)
        if is_first:
            checkpoint.save(state)
        return state

    def finish(self, write: Callable[[], Path]) -> None:
        """Writes the result, in the first process alone, and ends what the processes share."""
        if self.accelerator.is_main_process:
            self.say(f"saved {write()}")
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
