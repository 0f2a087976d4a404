"""What a run is given: a picture, parts of it blacked out, and poses as joints or as drawn frames.

Shape letters: T frames, H W height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cogvideox.family import DYNAMICTRL
from ..errors import SettingError, ShapeError
from ..poses.draw import Colours, draw_poses
from ..poses.keypoints import read_openpose
from ..poses.sequence import PoseSequence, check_poses
from ..video import check_frames, check_single_image, fit_frames
from .frames import FramePlan


def read_poses(value: Any) -> PoseSequence:
    """The poses of a POSE_KEYPOINT value, one for each frame of the video to be made.

    Raises ShapeError if it cannot be read, or nobody is in it.
    """
    return check_poses(read_openpose(value, DYNAMICTRL.fps), "poses")


def black_out(image: Tensor, mask: Tensor | None) -> Tensor:
    """The picture (1, H, W, 3) in 0..1, black where the mask (1, h, w) is 1, for the masked models.

    The mask is scaled to the picture; one that is 0 everywhere, as pictures without transparency bring it, is none.
    Raises ShapeError if there are several masks, SettingError if nothing of the picture would be left.
    """
    picture = check_single_image(image, "image")
    if mask is None:
        return picture
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or len(mask) != 1:
        raise ShapeError(f"mask: one mask expected for the one picture, {list(mask.shape)} found.")
    if not torch.isfinite(mask).all():
        raise ShapeError("mask: some values are not numbers. Look at the node that makes it.")
    hidden = F.interpolate(mask[None].float().clamp(0, 1), picture.shape[1:3], mode="bilinear", antialias=True)[0]
    if not hidden.any():
        return picture
    if (hidden > 0.99).all():
        raise SettingError("mask: all of the picture would be black. Invert the mask: white is what is blacked out.")
    return picture * (1 - hidden.unsqueeze(-1))


def pose_frames(
    plan: FramePlan,
    width_px: int,
    height_px: int,
    *,
    poses: PoseSequence | None = None,
    video: Tensor | None = None,
    colours: Colours = "dynamictrl",
    on_frame: Callable[[int], None] | None = None,
) -> Tensor:
    """Drawn poses (T, height_px, width_px, 3) in 0..1, as many as the plan has, of joints or of an IMAGE batch.

    Joints are drawn as released. A video is scaled to cover the size and cut at the centre; in colours openpose its red
    and blue are exchanged to the release's. Too few are held at the last, too many are cut.
    Raises SettingError if not exactly one of both is given, ShapeError if the video cannot be used.
    """
    check_one_of(poses is not None, video is not None)
    if poses is not None:
        return draw_poses(plan.fit_poses(poses), width_px, height_px, on_frame=on_frame)
    fitted = fit_frames(plan.fit_pose_frames(check_frames(video, "pose_video")), width_px, height_px)
    return fitted.flip(-1) if colours == "openpose" else fitted


def check_one_of(poses: bool, video: bool) -> None:
    """Passes if exactly one is given. Raises SettingError otherwise."""
    if poses == video:
        what = "both are" if poses else "neither is"
        raise SettingError(
            f"poses and pose_video: {what} connected. Connect one: joints as POSE_KEYPOINT, or frames that are drawn."
        )
