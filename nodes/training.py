"""What every training node does: its inputs, its run, its samples, its saving.

A training node has the inputs of training_inputs() besides its own, and takes them together as a Plan:

    def fingerprint_inputs(cls, **widgets):
        return changes_while_unfinished(FILES, **widgets)

    def check_lazy_status(cls, steps, learning_rate, batch_size, **inputs):
        check_training_settings(steps, learning_rate, batch_size)
        return not_computed(inputs)

    def execute(cls, model, data, **settings):
        learned, state = train_something(model, data, Plan(**settings))
        return io.NodeOutput(learned, draw_loss(state.losses))

and beside it, in the system's file, the function that does the work:

    training = Training(FILES, plan, identity)      # identity: what was learned from, as names and numbers
    state = training.run(patcher, num_bytes, fit)   # fit(course): the core's; checkpoints, progress, Cancel are done
    training.save("folder", state, write)           # write(path, metadata): the core's writer of the result

`fit` takes the core's Course, which says what Plan and ComfyUI do, and returns its TrainingState. Trainings with the
same plan and identity share one checkpoint, so a run that was cancelled goes on when it is queued again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..flexiact_core.training_files import check_can_save, is_lost, is_unfinished, record_result
from . import inputs
from .host import folders, memory, progress

if TYPE_CHECKING:
    from torch import Tensor

    from ..flexiact_core.training import Course, TrainingState


def training_inputs(kind: folders.ModelFolder, gradient_checkpointing: bool = True) -> list:
    """The last inputs of every training node; `kind` is the model folder that their results go to.

    gradient_checkpointing: whether there is a choice of it, as for a model that does not fit into memory without.
    """
    shared = [
        io.Int.Input(
            "checkpoint_every",
            default=250,
            min=1,
            max=100000,
            advanced=True,
            tooltip=f"Steps between two checkpoints in models/{kind.name}/training. Low: less is lost in a crash.",
        ),
        io.Boolean.Input(
            "resume",
            default=True,
            tooltip="Go on from the last checkpoint of the same name, clips and settings. Off: start anew.",
        ),
        inputs.seed("Fixes all randomness of the training. A new seed is a new training.", new_each_run=False),
    ]
    choice = io.Combo.Input(
        "gradient_checkpointing",
        options=["auto", "on", "off"],
        default="auto",
        advanced=True,
        tooltip="on: far less memory, but the forward pass is computed twice. auto: on if memory would not do.",
    )
    return [*shared, choice] if gradient_checkpointing else shared


@dataclass(frozen=True)
class Plan:
    """The settings that every training node has, by the names of its inputs."""

    name: str
    steps: int
    learning_rate: float
    batch_size: int
    checkpoint_every: int
    resume: bool
    seed: int
    gradient_checkpointing: str = "auto"

    def __post_init__(self):
        # Half a letter, such as half an emoji, could not be written into a file.
        object.__setattr__(self, "name", self.name.encode(errors="replace").decode())

    @property
    def learning(self) -> dict[str, Any]:
        """Those that what is learned depends on; more steps prolong a training and do not make it another one."""
        return {"learning_rate": self.learning_rate, "batch_size": self.batch_size, "seed": self.seed}


class Training:
    """One training of one node: it goes on from its checkpoint, reports, stops at Cancel, and saves what it learned.

    kind is the model folder of its files; identity says what is learned from what, in values that JSON can hold. Both
    it and what Plan.learning holds stand in the metadata of the result. folder, below kind, is where that will be
    saved, and num_learned how many numbers are learned: room for them is looked for before the first step.
    Raises FileError if its checkpoint cannot be read.
    """

    def __init__(
        self, kind: folders.ModelFolder, plan: Plan, identity: Mapping[str, Any], folder: str = "", num_learned: int = 0
    ):  # fmt: skip
        from ..flexiact_core.training import Checkpoint

        self.kind, self.plan, self.folder, self.num_learned = kind, plan, folder, num_learned
        self.settings = {**identity, **plan.learning}
        self.digest = folders.digest(self.settings)
        path = folders.training_path(kind, plan.name, self.digest)
        says = {"name": plan.name, "settings": json.dumps(plan.learning)}
        self.checkpoint = Checkpoint(path, plan.checkpoint_every, says)
        self.resumed = self.checkpoint.load() if plan.resume else None
        done = 0 if self.resumed is None else self.resumed.steps_done
        if done > plan.steps:
            progress.say(
                f"steps {plan.steps}: this training has done {done} steps before, and is saved with all of them. For "
                "fewer, turn resume off."
            )
        self.report = progress.TrainingProgress(plan.steps, done)

    def run(
        self,
        patcher,
        num_bytes: int,
        fit: Callable[[Course], TrainingState],
        draw_sample: Callable[[TrainingState], Tensor] | None = None,
        sample_every: int = 0,
        gradient_checkpointing: bool = False,
    ) -> TrainingState:
        """The state that `fit` comes to, with the module of `patcher` on its device and num_bytes of room beside it.

        That its files can be written is tried before the first step.
        draw_sample gives frames (T, H, W, 3) in 0..1 of what was learned so far; it is asked after every sample_every
        steps but the last, and may load other modules. The checkpoint is written, also if Cancel ended the training.
        Raises what fit raises.
        """
        from ..flexiact_core.training import Course

        # What is learned and two moments of it, in float32; the checkpoint before stays until the next one is whole.
        check_can_save(self.checkpoint.path.parent, 2 * 3 * 4 * self.num_learned)
        check_can_save(self.kind.roots()[0] / self.folder)

        def on_step(index, loss, take_state):
            done = index + 1
            if sample_every and done % sample_every == 0 and done < self.plan.steps:
                self.report.show_sample(draw_sample(take_state()))
                # Sampling may have moved the module out to make room for others.
                memory.load_to_train(patcher, num_bytes)
            self.checkpoint.on_step(index, loss, take_state)
            self.report.step(done, loss)

        with memory.on_device_to_train(patcher, num_bytes) as device:
            course = Course(
                **self.plan.learning, steps=self.plan.steps, device=device, resume=self.resumed, on_step=on_step,
                stop_on=(progress.interrupt(),), gradient_checkpointing=gradient_checkpointing,
            )  # fmt: skip
            state = fit(course)
        self.checkpoint.save(state)
        if state.steps_done < self.plan.steps:
            progress.say(f"Training stopped at step {state.steps_done} of {self.plan.steps}; what was learned is kept.")
        return state

    def metadata(self, state: TrainingState) -> dict[str, Any]:
        """What the learned file says of itself."""
        return self.settings | {
            "action": self.plan.name,
            "steps": state.steps_done,
            "training": self.digest,
            "pack_version": folders.pack_version(),
        }

    def save(
        self,
        folder: str,
        state: TrainingState,
        write: Callable[[Path, dict[str, Any]], Any],
        beside: Mapping[str, Callable[[Path], Any]] | None = None,
    ) -> Path:
        """The path FOLDER/NAME.safetensors that write(path, metadata) has written; says where it lies.

        beside holds writers of files of the same name by their endings, which are called with the path.
        """
        path = folders.result_path(self.kind, folder, self.plan.name, self.digest)
        write(path, self.metadata(state))
        files = [path]
        for ending, write_beside in (beside or {}).items():
            files.append(path.with_suffix(ending))
            write_beside(files[-1])
        root, plan = self.kind.roots()[0], self.plan
        record_result(root, plan.name, self.digest, filter(Path.is_file, files), plan.learning)
        progress.say(f"Saved as {path.name} in {folders.shown(path.parent)}.")
        return path


def save_preview(path: Path, frames: Tensor, fps: float) -> None:
    """Writes frames (T, H, W, 3) in 0..1 as the video beside a result; says so if that fails."""
    from ..flexiact_core.errors import FileError
    from ..flexiact_core.video_files import write_preview

    try:
        write_preview(path, frames, fps)
    except FileError as error:
        # What was learned goes on through the graph.
        progress.say(str(error))


def not_computed(lazy: Mapping[str, Any]) -> list[str]:
    """For check_lazy_status: names of the inputs that ComfyUI has still to compute."""
    # Sockets are lazy so that settings are checked before a model is loaded; all of them are needed after that.
    return [name for name, value in lazy.items() if value is None]


def changes_while_unfinished(kind: folders.ModelFolder, name=None, steps=None, resume=True, **widgets):
    """For fingerprint_inputs: another value each time while the training that these widgets ask for is not done.

    That is while its checkpoint has not reached `steps` steps, or if the result that it saved was deleted.
    """
    # A training that was cancelled is to go on when it is queued again, though nothing in the graph has changed.
    if not name or not steps:
        return ""
    root, name = kind.roots()[0], str(name).encode(errors="replace").decode()
    settings = {key: widgets[key] for key in ("learning_rate", "batch_size", "seed") if widgets.get(key) is not None}
    unfinished = resume and is_unfinished(root, name, steps, settings)
    return time.time() if unfinished or is_lost(root, name, settings) else ""
