"""Pictures for P2I: a box cut out, fitted into a square, in the numbers that the networks know, and back.

Shape letters: T pictures, H W height and width in pixels, S side of the square.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ShapeError
from ..picture_files import read_stored_picture
from .letterbox import to_box
from .pose_to_image import SIDE_PX
from .released_list import ListRow, find_image

# Red, green, blue in 0..255: around a picture that is no square.
BORDER_COLOUR = (123.7, 116.3, 103.5)


@dataclass(frozen=True, eq=False)
class PictureClip:
    """One row of a list as the networks see it: pictures (6, 3, S, S) in -1..1, the source first, poses (6, 13, 2).

    people (5, 1, S, S) is 1 in the box of the person of each target; action is the row's number.
    """

    pictures: Tensor
    poses: Tensor
    people: Tensor
    action: int


def fit_picture(image: Tensor, box: Tensor, side: int = SIDE_PX) -> Tensor:
    """The box (4,) of a picture (H, W, 3 or 4) in 0..1 as (3, S, S) in -1..1, on a border of the released colour.

    Where the box reaches out of the picture, or the picture is transparent, that colour is seen.
    Raises ShapeError if nothing of the box is inside.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = (int(round(float(edge))) for edge in box)
    inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not inside.numel():
        raise ShapeError(f"picture: the person's box lies outside its {width}x{height} pixels. Give its own pose.")
    colour = image.new_tensor(BORDER_COLOUR) / 255
    if inside.shape[-1] == 4:
        inside = torch.lerp(colour.expand_as(inside[..., :3]), inside[..., :3], inside[..., 3:])
    cut = colour.expand(bottom - top, right - left, 3).clone()
    cut[max(-top, 0) :, max(-left, 0) :][: len(inside), : inside.shape[1]] = inside
    scale = side / max(cut.shape[:2])
    size = [max(1, round(edge * scale)) for edge in cut.shape[:2]]
    small = F.interpolate(cut.permute(2, 0, 1)[None], size, mode="area")[0]
    square = colour[:, None, None].expand(3, side, side).clone()
    above, before = (side - size[0]) // 2, (side - size[1]) // 2
    square[:, above : above + size[0], before : before + size[1]] = small
    return square * 2 - 1


def to_frames(pictures: Tensor) -> Tensor:
    """Frames (T, S, S, 3) in 0..1 of the networks' pictures (T, 3, S, S) in -1..1."""
    return ((pictures.detach().float().cpu() + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).contiguous()


def read_clip(row: ListRow, root: Path, side: int = SIDE_PX) -> PictureClip:
    """A list's row with its pictures, which lie under `root`. Raises FileError if one is missing or unreadable."""
    images = [read_stored_picture(find_image(root, listed)) for listed in row.images]
    height, width = images[0].shape[:2]
    # As released, the box ends on the picture's last pixel.
    box = torch.minimum(row.box.clamp(min=0), row.box.new_tensor([width - 1, height - 1] * 2))
    pictures = torch.stack([fit_picture(image, box, side) for image in images])
    people = torch.stack([_mask(person, box, side) for person in row.people])
    return PictureClip(pictures, to_box(row.poses, box, SIDE_PX), people, row.action)


def _mask(person: Tensor, box: Tensor, side: int) -> Tensor:
    corners = (to_box(person.view(2, 2), box) + 1) * side / 2
    (left, top), (right, bottom) = corners.round().long().tolist()
    mask = torch.zeros(1, side, side)
    mask[:, top:bottom, left:right] = 1
    return mask
