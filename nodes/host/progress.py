"""What a running node shows: a bar, a line of text, a preview; and Cancel."""

from __future__ import annotations

import logging
import time

from comfy_api.latest import ComfyAPISync
from comfy_execution.utils import get_executing_context

from ...flexiact_core.spans import in_words

logger = logging.getLogger("flexiact")

# A call that will take longer than the second says so, once it has run long enough for a guess.
TELLING_SECONDS, LONG_SECONDS = 5, 120
# A run that will take longer says so after its first step, and how it would take less.
LONG_RUN_SECONDS = 600


class Progress:
    """Progress of one node: a bar, a line of text, a preview, and the point where Cancel takes effect."""

    def __init__(self, total: int):
        self.total = total
        self.execution = ComfyAPISync().execution

    def step(self, done: int, preview=None) -> None:
        """Reports that `done` of all steps are done, with a picture (H, W, 3) in 0..1 where there is one.

        Raises ComfyUI's interrupt if the user has pressed Cancel.
        """
        import comfy.model_management as memory

        memory.throw_exception_if_processing_interrupted()
        self.execution.set_progress(done, self.total, preview_image=None if preview is None else _to_pil(preview))


class LongCall:
    """Progress inside one long call of a model, by its parts: Cancel, a bar, and a word where it will take minutes.

    what begins that sentence, such as "Reading the prompt". Without a bar, the node's own shows something else.
    """

    def __init__(self, what: str, bar: bool = True):
        self.what, self.bar, self.said = what, bar, False
        self.started = self.shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Reports that `done` of all parts are done. Raises ComfyUI's interrupt if the user has pressed Cancel."""
        import comfy.model_management as memory

        memory.throw_exception_if_processing_interrupted()
        now = time.monotonic()
        if done == 0:
            self.started = now
        if self.bar and now - self.shown > 0.2 and get_executing_context() is not None:
            self.shown = now
            ComfyAPISync().execution.set_progress(min(done, total), total)
        seconds = now - self.started
        if not self.said and done and seconds > TELLING_SECONDS and seconds * total / done > LONG_SECONDS:
            self.said = True
            minutes = round(seconds * total / done / 60)
            say(f"{self.what} takes about {minutes} minutes on this device. Cancel stops it at any time.")


class SamplingProgress(Progress):
    """Progress of a denoising run: besides bar and preview, a line with the time left, from the first step on.

    shorter says what would make the run take less, for one that takes over ten minutes.
    """

    def __init__(self, total: int, shorter: str):
        super().__init__(total)
        self.shorter, self.started = shorter, time.monotonic()

    def step(self, done: int, preview=None) -> None:
        """Reports as Progress does, and shows the time left. Raises ComfyUI's interrupt at Cancel."""
        super().step(done, preview)
        taken = time.monotonic() - self.started
        whole = taken / done * self.total
        if done == 1 and whole > LONG_RUN_SECONDS:
            say(f"This run takes about {in_words(whole)}. {self.shorter}")
        left = f"{in_words(whole - taken)} left" if done < self.total else f"took {in_words(taken)}"
        show(f"step {done}/{self.total}  {left}")


class TrainingProgress(Progress):
    """Progress of a training: besides the bar, a line with loss, speed and time left, and the loss curve as preview."""

    def __init__(self, total: int, done: int):
        super().__init__(total)
        self.started, self.done_before = time.monotonic(), done
        self.shown, self.losses, self.sample = 0.0, [], None

    def step(self, done: int, loss: float) -> None:
        """Reports that `done` of all steps are done, the last with this loss; text and curve about once a second.

        Raises ComfyUI's interrupt if the user has pressed Cancel.
        """
        import comfy.model_management as memory

        from ...flexiact_core.plots import draw_loss

        memory.throw_exception_if_processing_interrupted()
        self.losses.append(loss)
        now = time.monotonic()
        if now - self.shown < 1 and done < self.total:
            self.execution.set_progress(done, self.total)
            return
        self.shown = now
        seconds = (now - self.started) / max(1, done - self.done_before)
        left = seconds * (self.total - done)
        recent = self.losses[-50:]
        show(
            f"step {done}/{self.total}  loss {sum(recent) / len(recent):.3f}  {seconds:.2f} s/step  "
            f"{in_words(left)} left"
        )
        picture = draw_loss(self.losses)[0] if self.sample is None else self.sample
        self.execution.set_progress(done, self.total, preview_image=_to_pil(picture, scale=1))

    def show_sample(self, frames) -> None:
        """Shows a few frames of a sample video from now on."""
        from ...flexiact_core.plots import tile_videos

        self.sample = tile_videos([frames])[0]


def stop_if_cancelled() -> None:
    """Raises ComfyUI's interrupt if the user has pressed Cancel."""
    import comfy.model_management as memory

    memory.throw_exception_if_processing_interrupted()


def interrupt() -> type[BaseException]:
    """The exception that ComfyUI raises, in progress reports and inside models, once the user has pressed Cancel."""
    import comfy.model_management as memory

    return memory.InterruptProcessingException


# What say() has told on the node that runs: another line that is shown goes below it, not in its place.
_said: tuple[tuple[str, str] | None, list[str]] = (None, [])


def say(text: str) -> None:
    """Shows a line of text on the running node, where it stays, and in the log."""
    global _said
    logger.info(text)
    # A node that runs for each of a list says it once.
    _said = (_running(), [*(line for line in _told() if line != text), text])
    _send(_said[1])


def show(text: str) -> None:
    """Shows a line of text on the running node, below what was said there, until the next is shown."""
    _send([*_told(), text])


def _running() -> tuple[str, str] | None:
    context = get_executing_context()
    return None if context is None else (context.prompt_id, context.node_id)


def _told() -> list[str]:
    node, lines = _said
    return lines if node == _running() else []


def _send(lines: list[str]) -> None:
    from server import PromptServer

    node = _running()
    # Where nodes run without a server there is none, and no such attribute.
    server = getattr(PromptServer, "instance", None)
    if node is not None and server is not None:
        server.send_progress_text("\n".join(lines), node[1])


def nothing():
    """A value for an output that was not asked for: what is connected to it does not run."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)


def _to_pil(picture, scale: int = 8):
    from PIL import Image

    image = Image.fromarray((picture * 255).round().byte().cpu().numpy())
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
