"""What every training node does: its inputs, its checkpoints and progress, and Cancel that keeps what was learned."""

from __future__ import annotations

import time

from comfy_api.latest import io

from .host import folders, media, progress


def training_inputs(kind: folders.ModelFolder) -> list:
    """The inputs that all training nodes have; `kind` is the model folder that their results go to."""
    return [
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
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="Fixes all randomness of the training. A new seed is a new training.",
        ),
        io.Combo.Input(
            "gradient_checkpointing",
            options=["auto", "on", "off"],
            default="auto",
            advanced=True,
            tooltip=("on: far less memory, but the forward pass is computed twice. auto: on if memory would not do."),
        ),
    ]


def not_computed(inputs):
    """Names of the inputs that ComfyUI has still to compute."""
    # Sockets are lazy so that settings are checked before a model is loaded; all of them are needed after that.
    return [name for name, value in inputs.items() if value is None]


class Training:
    """What the training nodes do around the loop: checkpoints, progress, and Cancel that keeps what was learned."""

    def __init__(
        self, kind: folders.ModelFolder, name: str, settings: dict, steps: int, checkpoint_every: int, resume: bool
    ):
        from ..flexiact_core.training import load_state

        self.name, self.settings, self.steps, self.checkpoint_every = name, settings, steps, checkpoint_every
        self.digest = folders.digest(settings)
        self.checkpoint = folders.training_path(kind, name, self.digest)
        self.resumed = load_state(self.checkpoint)[0] if resume and self.checkpoint.is_file() else None
        self.report = progress.TrainingProgress(steps, done=0 if self.resumed is None else self.resumed.steps_done)

    def on_step(self, index: int, loss: float, take_state) -> None:
        """Saves when it is due, and reports."""
        done = index + 1
        if done % self.checkpoint_every == 0:
            self.save(take_state())
        self.report.step(done, loss)

    def save(self, state) -> None:
        """Writes the checkpoint."""
        from ..flexiact_core.training import save_state

        save_state(state, self.checkpoint, {"name": self.name, "steps_done": str(state.steps_done)})

    def finish(self, state) -> None:
        """Writes the last checkpoint, and says so if Cancel ended the training."""
        self.save(state)
        if state.steps_done < self.steps:
            progress.say(f"Training stopped at step {state.steps_done} of {self.steps}; what was learned is kept.")

    def metadata(self, state) -> dict:
        """What the learned file says of itself."""
        return self.settings | {
            "action": self.name,
            "steps": state.steps_done,
            "training": self.digest,
            "pack_version": folders.pack_version(),
        }


def save_preview(path, frames) -> None:
    """Writes frames (T, H, W, 3) as the video beside a result; says so if that fails."""
    from ..flexiact_core.errors import FileError
    from ..flexiact_core.video_files import write_preview

    try:
        write_preview(path, frames, media.FPS)
    except FileError as error:
        # What was learned goes on through the graph.
        progress.say(str(error))


def changes_while_unfinished(kind: folders.ModelFolder, name, steps, resume):
    """For fingerprint_inputs: another value each time while a checkpoint of this name has not reached `steps` steps."""
    # A training that was cancelled is to go on when it is queued again, though nothing in the graph has changed.
    unfinished = resume and name and steps and folders.unfinished_training(kind, name, steps)
    return time.time() if unfinished else ""
