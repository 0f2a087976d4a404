"""What a training draws its clips from, and the clips that it is measured on while it runs.

Shape letters: B clips, T steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..training import TrainingState
from .build import MARGIN, STEPS, draw_lessons
from .dataset import PoseClips, draw_clips, read_clips, split_clips
from .figures import ACTIONS
from .fit import DrawClips, measure_predictor, predictor_of
from .measure import held_out_figures

HELD_OUT = 256


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Clips to learn from: draw(count, generator) gives (count, T + 2, 26) and actions; names are the actions'.

    held_out are poses (B, T + 1, 26) and actions (B,) that are never drawn; digest tells the clips from all others.
    """

    draw: DrawClips
    names: tuple[str, ...]
    steps: int
    margin: float
    held_out: tuple[Tensor, Tensor]
    digest: str
    notes: tuple[str, ...] = ()


def figures_data() -> TrainingData:
    """Procedural figures, as the shipped weights learned from."""
    figures = held_out_figures(HELD_OUT, STEPS)
    held_out = figures.poses, figures.action
    return TrainingData(draw_lessons, tuple(ACTIONS), STEPS, MARGIN, held_out, "figures", ("procedural figures",))


def clips_data(clips: PoseClips, mirror: bool = True) -> TrainingData:
    """Clips that were read, one video in five of each action held out; with `mirror` half of those drawn turned."""
    learned, held_out = split_clips(clips)
    # A video for each action: nothing can be held out, and the measure says how well the clips are remembered.
    tested = held_out if len(held_out.poses) else learned
    contents = hashlib.sha256(clips.poses.numpy().tobytes() + clips.action.numpy().tobytes()).hexdigest()
    notes = (
        f"{len(learned.poses)} clips of {len(set(learned.groups))} videos to learn from, "
        f"{len(held_out.poses)} held out",
        *clips.notes,
    )
    return TrainingData(
        lambda count, generator: draw_clips(learned, count, generator, mirror),
        clips.names, clips.steps, clips.margin, (tested.poses[:HELD_OUT, :-1], tested.action[:HELD_OUT]),
        f"{contents} {mirror}", notes,
    )  # fmt: skip


def read_training_data(
    path: Path | None, actions: Sequence[str] = (), steps: int = 4, stride: int = 1, mirror: bool = True
) -> TrainingData:
    """The data of a path as dataset.read_clips() takes it, or figures where it is None. Raises as that does."""
    return figures_data() if path is None else clips_data(read_clips(path, actions, steps, stride), mirror)


def measure_state(data: TrainingData, state: TrainingState) -> str:
    """What the predictor of a training's state makes of the clips that are held out, in a sentence."""
    error, still = measure_predictor(predictor_of(state), *data.held_out)
    return f"step {state.steps_done}, held out: error {error:.2f} px of 128, standing still {still:.2f}"


def split_names(text: str) -> tuple[str, ...]:
    """Names from a text with commas or lines between them."""
    return tuple(name.strip() for name in text.replace("\n", ",").split(",") if name.strip())
