"""How many frames and poses a run of DynamiCtrl has, and which of the decoded frames are kept.

An even number L of latent frames decodes to 4L frames, latent 0 giving four; a clip of 4(L - 1) + 1 frames encodes to
it. The three frames too many come first: the last frames are the clip's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..cogvideox.family import COGVIDEOX_1_5, DYNAMICTRL, Family
from ..errors import SettingError
from ..poses.sequence import PoseSequence, take_frames
from ..poses.timing import fit_length

FrameRule = Literal["aligned", "release", "padded"]
RULES = ("aligned", "release", "padded")


@dataclass(frozen=True)
class FramePlan:
    """What a number of frames asks for; made by plan_frames()."""

    num_frames: int  # of the result
    num_poses: int  # the first `padding` of them are the first pose again
    padding: int
    dropped_latents: int  # at the front, before decoding
    keep_last: bool  # which of the decoded frames are the result

    def keep_latents(self, latents: Tensor) -> Tensor:
        """Of latents (B, L, C, h, w) those to decode."""
        return latents[:, self.dropped_latents :]

    def keep_frames(self, frames: Tensor) -> Tensor:
        """Of decoded frames (T, H, W, 3) the result."""
        return frames[-self.num_frames :] if self.keep_last else frames[: self.num_frames]

    def fit_poses(self, poses: PoseSequence) -> PoseSequence:
        """As many poses as the run has: cut, or the last one held; the first one again in front where it pads."""
        fitted = fit_length(poses, self.num_frames)
        front = torch.zeros(self.padding, dtype=torch.long)
        return take_frames(fitted, torch.cat([front, torch.arange(self.num_frames)]))

    def fit_pose_frames(self, frames: Tensor) -> Tensor:
        """The same of a drawn pose video (T, H, W, 3)."""
        held = torch.arange(self.num_frames).clamp(max=len(frames) - 1)
        return frames[torch.cat([torch.zeros(self.padding, dtype=torch.long), held])]


def plan_frames(num_frames: int, rule: FrameRule = "aligned") -> FramePlan:
    """The plan for a result of num_frames.

    aligned: 8k+5 frames with a pose each, as trained; the decoded frames that show the poses are kept. release: the
    same, but the first decoded frames are kept, as the released script does, up to three frames off the poses.
    padded: 8k+1 frames; the first pose stands four times more in front, and the latent frame that it fills is dropped.
    Raises SettingError if the rule is unknown or the number does not fit it, naming the nearest that do.
    """
    family = _family_of(rule)
    multiple, offset = family.frame_multiple, family.frame_offset
    if num_frames < offset or (num_frames - offset) % multiple:
        below = max(offset, (num_frames - offset) // multiple * multiple + offset)
        raise SettingError(
            f"num_frames {num_frames}: {multiple}k+{offset} frames are possible with frame_rule {rule}. Nearest: "
            f"{below} or {below + multiple}."
        )
    dropped = family.count_padding(num_frames)
    padding = dropped * family.frames_per_latent
    return FramePlan(num_frames, num_frames + padding, padding, dropped, keep_last=rule != "release")


def most_frames(num_frames: int, rule: FrameRule = "aligned") -> int:
    """The largest number up to num_frames that plan_frames() has a plan for. Raises SettingError as it does."""
    family = _family_of(rule)
    multiple, offset = family.frame_multiple, family.frame_offset
    return max(offset, (num_frames - offset) // multiple * multiple + offset)


def _family_of(rule: FrameRule) -> Family:
    if rule not in RULES:
        raise SettingError(f"frame_rule '{rule}': choose {', '.join(RULES)}.")
    return COGVIDEOX_1_5 if rule == "padded" else DYNAMICTRL
