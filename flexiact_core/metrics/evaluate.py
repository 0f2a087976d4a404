"""All that is measured of one video, as far as what it takes is there; and it in words.

Shape letters: T frames, H and W height and width in pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial

from torch import Tensor

from ..errors import FlexiActError, ShapeError
from . import clip as clips
from .motion import motion_fidelity, moving_fidelity
from .tracks import Tracks
from .video import video_lpips, video_psnr_db, video_ssim


@dataclass(frozen=True)
class Measure:
    """What a measure is called, what its ends are, and how many digits are shown."""

    title: str
    about: str
    digits: int = 4


# Text similarity, motion fidelity and the two consistencies are those of the paper's table.
MEASURES: Mapping[str, Measure] = {
    "text_similarity": Measure("text similarity", "CLIP: frames and prompt, -1 to 1"),
    "motion_fidelity": Measure("motion fidelity", "points that move alike, -1 to 1; those at rest count, too"),
    "moving_fidelity": Measure("motion fidelity, moving", "the same of points that move; 0 for a still video"),
    "temporal_consistency": Measure("temporal consistency", "CLIP: each frame and the next, -1 to 1"),
    "appearance_consistency": Measure("appearance consistency", "CLIP: the first frame and each other, -1 to 1"),
    "psnr": Measure("PSNR", "decibel against the true video", 2),
    "ssim": Measure("SSIM", "against the true video, up to 1"),
    "lpips": Measure("LPIPS", "against the true video, 0 is equal"),
}
NO_TRACKS = "give the reference, or the points that were followed through both videos."
PAPER_MEASURES = ("text_similarity", "motion_fidelity", "temporal_consistency", "appearance_consistency")


@dataclass(frozen=True)
class Evaluation:
    """The values of what was measured, by the names in MEASURES, and a sentence for each that was not."""

    values: Mapping[str, float]
    missing: Mapping[str, str] = field(default_factory=dict)

    def table(self) -> str:
        """A table in Markdown, and below it what was not measured and why."""
        rows = ["| measure | value | |", "|---|---|---|"]
        for name, value in self.values.items():
            measure = MEASURES[name]
            rows.append(f"| {measure.title} | {value:.{measure.digits}f} | {measure.about} |")
        notes = [f"- {MEASURES[name].title}: {reason}" for name, reason in self.missing.items()]
        return "\n".join([*rows, *(["", "Not measured:", *notes] if notes else [])])

    def as_json(self) -> str:
        """The values as JSON; one that is infinite or no number is null, which JSON has no word for."""
        return json.dumps({name: value if math.isfinite(value) else None for name, value in self.values.items()})


def evaluate_video(
    frames: Tensor,
    *,
    prompt: str = "",
    clip: clips.SeesFrames | None = None,
    tracks: Tracks | None = None,
    reference: Tracks | None = None,
    exact: Tensor | None = None,
    no_tracks: str = "",
) -> Evaluation:
    """What can be measured of frames (T, H, W, 3) in 0..1: all of MEASURES whose inputs are given.

    prompt and clip give text similarity, clip the consistencies; the two Tracks motion fidelity, over the frames that
    both have; exact, the true video in the frames' shape, PSNR, SSIM and LPIPS.
    no_tracks is the sentence on why there are none.
    A measure that cannot be taken stops no other: its sentence is in the Evaluation.
    """
    ways, missing = _clip_ways(frames, prompt, clip)
    if tracks is None or reference is None:
        missing["motion_fidelity"] = no_tracks or NO_TRACKS
    else:
        length = min(tracks.num_frames, reference.num_frames)
        pair = reference.first(length), tracks.first(length)
        ways["motion_fidelity"] = partial(motion_fidelity, *pair)
        ways["moving_fidelity"] = partial(moving_fidelity, *pair)
    if exact is not None:
        ways |= {name: partial(way, frames, exact) for name, way in _AGAINST_TRUTH.items()}
    values: dict[str, float] = {}
    for name in MEASURES:
        if name in ways:
            try:
                values[name] = ways[name]()
            except FlexiActError as error:
                missing[name] = str(error)
    return Evaluation(values, missing)


def _clip_ways(
    frames: Tensor, prompt: str, clip: clips.SeesFrames | None
) -> tuple[dict[str, Callable], dict[str, str]]:
    names = ("text_similarity", "temporal_consistency", "appearance_consistency")
    if clip is None:
        return {}, dict.fromkeys(names, "choose a CLIP, or connect one.")
    seen = cache(lambda: clip.see(frames))
    ways = {
        "temporal_consistency": lambda: clips.temporal_consistency(seen()),
        "appearance_consistency": lambda: clips.appearance_consistency(seen()),
    }
    if not prompt.strip():
        return ways, {"text_similarity": "the prompt is empty."}
    words = clip.read(prompt)
    if words is None:
        return ways, {"text_similarity": "CLIP_VISION reads no words. Choose a whole CLIP, in clip."}
    return ways | {"text_similarity": lambda: clips.text_similarity(seen(), words)}, {}


def _psnr(frames: Tensor, exact: Tensor) -> float:
    if frames.shape != exact.shape:
        raise ShapeError(f"PSNR: frames of {list(exact.shape)} expected, {list(frames.shape)} found.")
    return video_psnr_db(frames.cpu().numpy(), exact.cpu().numpy())


_AGAINST_TRUTH = {"psnr": _psnr, "ssim": video_ssim, "lpips": video_lpips}
