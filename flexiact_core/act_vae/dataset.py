"""Clips to learn poses from: the authors' list, Penn Action's labels, folders of POSE_KEYPOINT files.

Shape letters: N clips, T steps, F frames. A clip holds T + 2 poses: the source, and one more than are predicted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..downloads import existing_file
from ..errors import FileError, ShapeError, why
from ..poses.keypoints import read_openpose
from ..poses.people import choose_person
from ..poses.sequence import to_layout
from ..poses.skeletons import PENN13
from .letterbox import HIGHEST, grow_box, person_box, to_box
from .mat_file import read_mat
from .model import NUM_JOINTS, POSE_WIDTH, RELEASED_STEPS
from .released_list import read_rows
from .source import complete_pose

# A frame of one person, with hands and face, takes about 4 kB as text.
MAX_POSES_BYTES = 64_000_000
# Border of the box around the first pose, as a share of its longer side, where the data names no box.
MARGIN = 0.35
STILL_PX = 1e-3
# Left and right of the 13 joints exchanged.
MIRRORED = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11]


@dataclass(frozen=True, eq=False)
class PoseClips:
    """Clips to learn from: poses (N, T + 2, 26) in -1..1, their actions (N,), the actions' names, where each is from.

    groups names the video of each clip: clips of one video belong on the same side of a split. margin is the border of
    the boxes, notes what was left out or is odd.
    """

    poses: Tensor
    action: Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...]
    margin: float
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """How many poses are predicted from one."""
        return self.poses.shape[1] - 2


def read_clips(path: Path, names: Sequence[str] = (), steps: int = RELEASED_STEPS, stride: int = 1) -> PoseClips:
    """The clips of a list file, of a folder of .mat labels, or of a folder with a folder of .json poses per action.

    names are the actions wanted, in order; without them all that are there. stride is how many frames lie between two
    poses of a clip; the authors' list has its own, and 4 steps.
    Raises FileError if nothing can be learned from what lies there.
    """
    path = Path(path)
    if path.is_file():
        return _checked(_from_list(path), path)
    if not path.is_dir():
        raise FileError(f"{path.name}: no such file or folder. Give a list, a folder of .mat labels, or one of poses.")
    if any(path.glob("*.mat")):
        return _checked(_from_labels(path, names, steps, stride), path)
    return _checked(_from_poses(path, names, steps, stride), path)


def draw_clips(clips: PoseClips, count: int, generator: torch.Generator, mirror: bool = False) -> tuple[Tensor, Tensor]:
    """So many clips at random, (count, T + 2, 26), and their actions; with `mirror` half of them as in a mirror."""
    which = torch.randint(len(clips.poses), (count,), generator=generator)
    poses = clips.poses[which]
    if mirror:
        turned = torch.rand(count, generator=generator) < 0.5
        poses = torch.where(turned[:, None, None], mirror_poses(poses), poses)
    return poses, clips.action[which]


def mirror_poses(poses: Tensor) -> Tensor:
    """Poses (..., 26) in -1..0.984 seen in a mirror: left is right, in the picture and in the body."""
    joints = poses.unflatten(-1, (NUM_JOINTS, 2))[..., MIRRORED, :]
    return torch.stack([HIGHEST - 1 - joints[..., 0], joints[..., 1]], dim=-1).flatten(-2)


def split_clips(clips: PoseClips, share: float = 0.2) -> tuple[PoseClips, PoseClips]:
    """Clips to learn from and clips held out, by video, so that no video is on both sides; every action on the first.

    The last videos of each action, about `share` of them, are held out where an action has more than one.
    """
    held_out: set[str] = set()
    for number in range(len(clips.names)):
        chosen = (clips.action == number).nonzero()[:, 0].tolist()
        videos = sorted({clips.groups[clip] for clip in chosen})
        if len(videos) > 1:
            held_out |= set(videos[-max(1, round(share * len(videos))) :])
    late = torch.tensor([group in held_out for group in clips.groups])
    return _take(clips, ~late), _take(clips, late)


def _take(clips: PoseClips, chosen: Tensor) -> PoseClips:
    groups = tuple(group for group, wanted in zip(clips.groups, chosen.tolist()) if wanted)
    return PoseClips(clips.poses[chosen], clips.action[chosen], clips.names, groups, clips.margin, clips.notes)


def _checked(clips: PoseClips, path: Path) -> PoseClips:
    if not len(clips.poses):
        why = f" ({'; '.join(clips.notes)})" if clips.notes else ""
        raise FileError(
            f"{path.name}: no clip to learn from{why}. Give a folder with a folder of POSE_KEYPOINT .json files for "
            "each action, Penn Action's labels, or the authors' list."
        )
    if len(clips.action.unique()) < 2:
        raise FileError(
            f"{path.name}: clips of one action alone ({clips.names[int(clips.action[0])]}); its word would mean "
            "nothing. Add clips of another action."
        )
    still = int(((clips.poses - clips.poses[:, :1]).abs().amax((1, 2)) < STILL_PX).sum())
    notes = (*clips.notes, f"{still} of {len(clips.poses)} clips do not move") if still else clips.notes
    return PoseClips(clips.poses, clips.action, clips.names, clips.groups, clips.margin, notes)


def _from_list(path: Path) -> PoseClips:
    rows = read_rows(path)
    numbers = sorted({row.action for row in rows})
    named = {row.action: row.name for row in rows}
    names = tuple(named.get(number, f"action_{number}") for number in range(numbers[-1] + 1))
    poses = torch.stack([to_box(row.poses, row.box).flatten(1) for row in rows])
    groups = tuple(row.video for row in rows)
    return PoseClips(poses, torch.tensor([row.action for row in rows]), names, groups, 0.1)


def _from_labels(folder: Path, names: Sequence[str], steps: int, stride: int) -> PoseClips:
    """Penn Action's labels: NNNN.mat with action, x, y and visibility (F, 13), bbox (F, 4)."""
    found: list[tuple[str, str, Tensor]] = []
    unmarked = short = 0
    for path in sorted(folder.glob("*.mat")):
        action, points, boxes = _read_label(path)
        if names and action not in names:
            continue
        windows = list(_windows(len(points), steps, stride))
        short += not windows
        for frames in windows:
            clip, box = points[frames], boxes[frames]
            # The labels write 1, 1 for a joint that is out of the picture.
            if (clip <= 1).all(-1).any():
                unmarked += 1
                continue
            around = torch.cat([box[:, :2].amin(0), box[:, 2:].amax(0)])
            found.append((action, path.stem, to_box(clip, around).flatten(1)))
    notes = [f"{unmarked} clips with a joint outside the picture left out"] if unmarked else []
    return _gathered(found, names, 0.1, notes + _short(short, steps, stride), steps)


def _read_label(path: Path) -> tuple[str, Tensor, Tensor]:
    """The action of a label, the joints (F, 13, 2) and boxes (F, 4) of its frames, in pixels."""
    content = read_mat(path)
    action, *tables = (content.get(key) for key in ("action", "x", "y", "bbox"))
    if not isinstance(action, str) or any(table is None or isinstance(table, str) for table in tables):
        raise FileError(f"{path.name}: no label of Penn Action (action, x, y, bbox). Take it out of the folder.")
    x, y, boxes = (torch.from_numpy(table).float() for table in tables)
    fits = x.shape == y.shape and x.ndim == 2 and x.shape[1] == NUM_JOINTS and boxes.shape == (len(x), 4)
    if not fits or not all(torch.isfinite(table).all() for table in (x, y, boxes)):
        raise FileError(f"{path.name}: x and y of {NUM_JOINTS} joints and a box in each frame are expected.")
    return action, torch.stack([x, y], dim=-1), boxes


def _from_poses(folder: Path, names: Sequence[str], steps: int, stride: int) -> PoseClips:
    """FOLDER/ACTION/*.json, each a POSE_KEYPOINT of a video."""
    found: list[tuple[str, str, Tensor]] = []
    short = left_out = 0
    for path in sorted(folder.glob("*/*.json")):
        action = path.parent.name
        if names and action not in names:
            continue
        points, incomplete = _read_video(path)
        left_out += incomplete
        windows = list(_windows(len(points), steps, stride))
        short += not windows
        for frames in windows:
            clip = points[frames]
            if torch.isnan(clip).any():
                continue
            box = grow_box(person_box(clip[0]), MARGIN)
            found.append((action, f"{action}/{path.stem}", to_box(clip, box).flatten(1)))
    notes = [f"{left_out} frames without a whole person left out"] if left_out else []
    return _gathered(found, names, MARGIN, notes + _short(short, steps, stride), steps)


def _read_video(path: Path) -> tuple[Tensor, int]:
    """The joints (F, 13, 2) of the largest person of a file, NaN in frames that lack too many; how many those are."""
    if existing_file(path).stat().st_size > MAX_POSES_BYTES:
        raise FileError(f"{path.name}: poses of more than {MAX_POSES_BYTES // 10**6} MB are not read. Split the video.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path.name}: this is no JSON text ({why(error)}). Save the POSE_KEYPOINT again.") from error
    poses = to_layout(choose_person(read_openpose(content, 1.0, path.name)), PENN13)
    points = torch.full((poses.num_frames, NUM_JOINTS, 2), torch.nan)
    for frame in range(poses.num_frames if poses.num_people else 0):
        try:
            points[frame] = complete_pose(poses.points[frame, 0], poses.scores[frame, 0])[0]
        except ShapeError:
            continue
    return points, int(torch.isnan(points).any(-1).any(-1).sum())


def _windows(num_frames: int, steps: int, stride: int) -> Iterator[slice]:
    """Every window of steps + 2 frames `stride` apart, each beginning `stride` frames after the last."""
    length = (steps + 1) * stride + 1
    for first in range(0, num_frames - length + 1, stride):
        yield slice(first, first + length, stride)


def _short(number: int, steps: int, stride: int) -> list[str]:
    length = (steps + 1) * stride + 1
    return [f"{number} videos of fewer than {length} frames left out"] if number else []


def _gathered(
    found: list[tuple[str, str, Tensor]], names: Sequence[str], margin: float, notes: list[str], steps: int
) -> PoseClips:
    names = tuple(names) or tuple(sorted({action for action, _, _ in found}))
    poses = torch.stack([clip for _, _, clip in found]) if found else torch.zeros(0, steps + 2, POSE_WIDTH)
    action = torch.tensor([names.index(action) for action, _, _ in found], dtype=torch.long)
    return PoseClips(poses, action, names, tuple(group for _, group, _ in found), margin, tuple(notes))
