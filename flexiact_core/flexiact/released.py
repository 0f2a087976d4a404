"""The authors' benchmark folder: actions with their reference clips and target pictures."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..clip_lists import ListedClip, find_listed, read_clip_list, read_rows
from ..file_lists import walk_files
from ..training_files import plain_name
from ..video_files import encode_video
from ..weight_files import write_content

# Of crop.csv.
COLUMNS = ("video_path", "start_frame", "end_frame", "fps", "mask_id", "caption")


@dataclass(frozen=True)
class ReleasedAction:
    """One action of the authors' benchmark folder: its reference clips, and target pictures with their captions."""

    kind: str
    name: str
    clips: tuple[ListedClip, ...]
    targets: tuple[tuple[Path, str], ...]


def read_released_action(folder: Path) -> ReleasedAction:
    """The action described by captions/<kind>/<action> of the authors' benchmark folder.

    Raises FileError as read_clip_list does. val_image.csv, the target pictures, may be missing.
    """
    folder = Path(folder)
    targets = folder / "val_image.csv"
    return ReleasedAction(
        kind=folder.parent.name,
        name=folder.name,
        clips=tuple(read_clip_list(folder / "crop.csv")),
        targets=read_targets(targets) if targets.is_file() else (),
    )


def read_targets(file: Path, root: Path | None = None) -> tuple[tuple[Path, str], ...]:
    """Pictures with their captions, of a list such as val_image.csv: a line for each, path first and caption last.

    Pictures lie inside root, as the videos of clip_lists.read_clip_list(). Raises FileError as find_listed() does.
    """
    return tuple(
        (find_listed(row[0], file, number, root), row[-1].strip())
        for number, row in read_rows(file)
        if len(row) > 1 and not (number == 1 and row[0].strip().lower() == "path")
    )


def write_released_action(root: Path, kind: str, name: str, videos: Sequence[Tensor], fps: int, caption: str) -> Path:
    """The folder captions/<kind>/<action> that describes the videos, written with them below `root`, as the authors lay
    theirs out: videos in reference_videos/<kind>/<action>_crop, and crop.csv with a line for each.

    videos are (T, H, W, 3) in 0..1 at fps frames per second. An action of that name stays as it is: a number is added
    to the new one's, unless it is the same in every byte. The list is written last, so that what is listed is there.
    Raises FileError if a video cannot be encoded, or something not be written.
    """
    root, kind = Path(root), plain_name(kind)
    encoded = [encode_video(frames, fps) for frames in videos]
    for number in itertools.count(1):
        action = plain_name(name) if number == 1 else f"{plain_name(name)}_{number}"
        files = _lay_out(root, kind, action, encoded, [len(frames) for frames in videos], fps, caption)
        folder, place = next(reversed(files)).parent, next(iter(files)).parent
        if all(file.is_file() and file.read_bytes() == content for file, content in files.items()):
            return folder
        if not folder.exists() and not place.exists():
            break
    for file, content in files.items():
        write_content(file, content)
    return folder


def _lay_out(
    root: Path, kind: str, action: str, encoded: Sequence[bytes], lengths: Sequence[int], fps: int, caption: str
) -> dict[Path, bytes]:
    """What each file of an action holds, crop.csv last."""
    place = Path("reference_videos") / kind / f"{action}_crop"
    files = {root / place / f"{number}.mp4": content for number, content in enumerate(encoded)}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    # The authors' code starts beside the folder: their paths begin with its name.
    lines.writerows(
        [(Path(root.name) / place / f"{number}.mp4").as_posix(), 0, length, fps, 0, caption]
        for number, length in enumerate(lengths)
    )
    return files | {root / "captions" / kind / action / "crop.csv": text.getvalue().encode()}


def find_released_actions(root: Path) -> dict[str, Path]:
    """Folders of the actions under a benchmark folder, captions/<kind>/<action>, by 'kind/action'. Never raises."""
    folders = (folder for folder, _, files in walk_files(root) if any(file.name == "crop.csv" for file in files))
    actions = (folder for folder in folders if folder.parent.parent.name == "captions")
    return {f"{folder.parent.name}/{folder.name}": folder for folder in actions}
