"""Pictures of predicted poses: one person's picture, drawn again by P2I in other poses.

Shape letters: T poses, H W height and width in pixels, S side of P2I's pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import SettingError, ShapeError, why
from ..plots import tile_videos
from ..poses.draw import Look, draw_poses
from ..poses.sequence import PoseSequence, to_layout
from ..poses.skeletons import PENN13
from .letterbox import from_box, grow_box, person_box, to_box
from .loading import ACTVAE
from .model import NUM_JOINTS, draw_noise, roll_out
from .pictures import PictureClip, fit_picture, to_frames
from .pose_to_image import SIDE_PX, draw_heat_maps
from .predict import action_number
from .source import SourcePose, complete_pose

MOST_AT_ONCE = 8
STRIP_FRAMES = 9
# Thirteen joints without hands and face, and small: thicker than the release draws whole bodies.
THICK = Look(stroke=24)


def render_poses(
    model: ACTVAE,
    image: Tensor,
    source: SourcePose,
    poses: PoseSequence,
    action: str,
    device: torch.device | str = "cpu",
    on_done: Callable[[int], None] | None = None,
) -> Tensor:
    """Frames (T, 128, 128, 3) in 0..1 of a person's picture (1, H, W, 3 or 4) in the poses of one person.

    source is the person's pose in the picture; poses and source are scaled from their canvases to the picture's size.
    One box holds all of them. on_done is called with how many frames are done.
    Raises SettingError if the model has no P2I or not this action, ShapeError if a frame has no person.
    """
    check_painter(model)
    number = action_number(model, action)
    height, width = image.shape[1:3]
    own = source.points * _scale(source.canvas, width, height)
    wanted = joints_of(poses) * _scale(poses.canvas, width, height)
    box = grow_box(person_box(torch.cat([own[None], wanted]).flatten(0, 1)), model.margin)
    picture = fit_picture(image[0], box).to(device)
    maps = draw_heat_maps(to_box(torch.cat([own[None], wanted]), box).to(device))
    frames = []
    with torch.no_grad():
        for part in maps[1:].split(MOST_AT_ONCE):
            count = len(part)
            made = model.generator(
                picture.expand(count, -1, -1, -1), maps[:1].expand(count, -1, -1, -1), part,
                torch.full((count,), number, device=device),
            )  # fmt: skip
            frames.append(to_frames(made))
            if on_done is not None:
                on_done(sum(map(len, frames)))
    return torch.cat(frames)


def compare_row(model: ACTVAE, clip: PictureClip, seed: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """The authors' test picture (1, H, W, 3): true pictures, predicted poses and generated pictures, a row each.

    Raises SettingError if the model has no P2I or not the clip's action.
    """
    check_painter(model)
    if clip.action >= len(model.actions):
        raise SettingError(f"the row's action {clip.action}: this model has {len(model.actions)} actions.")
    steps, action = model.steps, torch.tensor([clip.action], device=device)
    noise = draw_noise(1, steps, model.predictor.latent, torch.Generator().manual_seed(seed)).to(device)
    with torch.no_grad():
        poses = roll_out(model.predictor, clip.poses[:1].flatten(1).to(device), action, noise).poses[0]
        maps = draw_heat_maps(torch.cat([clip.poses[:1].to(device), poses.unflatten(-1, (NUM_JOINTS, 2))]))
        made = model.generator(
            clip.pictures[:1].expand(steps, -1, -1, -1).to(device), maps[:1].expand(steps, -1, -1, -1), maps[1:],
            action.expand(steps),
        )  # fmt: skip
    drawn = draw_square(poses.cpu())
    return tile_videos([to_frames(clip.pictures[1 : steps + 1]), drawn, to_frames(made)], steps, SIDE_PX)


def check_painter(model: ACTVAE) -> None:
    """Passes if a model can draw pictures. Raises SettingError if its files hold no P2I."""
    if model.generator is None:
        raise SettingError(
            f"{model.name or 'this model'} has no pose-to-image network. Put the release's generator.pt beside "
            "im_encode_content.pt, or train one."
        )


def picture_notes(image: Tensor, source: SourcePose) -> tuple[str, ...]:
    """What is odd about pictures (N, H, W, 3 or 4) and the pose of their person, a sentence each."""
    several = (f"{len(image)} pictures: the first one is drawn in other poses",) if len(image) > 1 else ()
    return (*several, *source.notes)


def draw_square(poses: Tensor) -> Tensor:
    """Frames (T, 128, 128, 3) in 0..1 of poses (T, 26) in -1..1, drawn."""
    points = from_box(poses.unflatten(-1, (NUM_JOINTS, 2)), poses.new_tensor([0.0, 0.0, SIDE_PX, SIDE_PX]))
    scores = torch.ones(len(points), 1, NUM_JOINTS)
    return draw_poses(PoseSequence(points[:, None], scores, (SIDE_PX, SIDE_PX), 8.0, PENN13), look=THICK)


def draw_variants(variants: Sequence[PoseSequence]) -> tuple[list[Tensor], Tensor]:
    """The frames (T, H, W, 3) in 0..1 of each variant, drawn on its canvas, and a few of each in rows (1, H, W, 3)."""
    drawn = [draw_poses(clip, look=THICK) for clip in variants]
    return drawn, tile_videos(drawn, min(STRIP_FRAMES, len(drawn[0])))


def joints_of(poses: PoseSequence) -> Tensor:
    """The 13 joints (T, 13, 2) of the first person, completed. Raises ShapeError for a frame that lacks too many."""
    chosen = to_layout(poses, PENN13)
    joints = []
    for frame in range(chosen.num_frames):
        try:
            joints.append(complete_pose(chosen.points[frame, 0], chosen.scores[frame, 0])[0])
        except (ShapeError, IndexError) as error:
            raise ShapeError(
                f"poses, frame {frame + 1}: no whole person ({why(error)}). Leave the frame out."
            ) from error
    return torch.stack(joints)


def _scale(canvas: tuple[int, int], width: int, height: int) -> Tensor:
    return torch.tensor([width / canvas[0], height / canvas[1]])


def read_test_row(path: Path, root: Path, row: int) -> PictureClip:
    """Row number `row` (from 1) of an authors' list, with its pictures. Raises SettingError if there is no such row."""
    from .pictures import read_clip
    from .released_list import read_rows

    rows = read_rows(path)
    if not 1 <= row <= len(rows):
        raise SettingError(f"row {row}: {path.name} has rows 1 to {len(rows)}.")
    return read_clip(rows[row - 1], root)
