"""The authors' benchmark folder: actions with their reference clips and target pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..clip_lists import ListedClip, find_listed, read_clip_list, read_rows
from ..file_lists import walk_files


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
    listed = read_rows(targets) if targets.is_file() else []
    return ReleasedAction(
        kind=folder.parent.name,
        name=folder.name,
        clips=tuple(read_clip_list(folder / "crop.csv")),
        targets=tuple(
            (find_listed(row[0], targets, number), row[-1].strip())
            for number, row in listed
            if len(row) > 1 and not (number == 1 and row[0].strip().lower() == "path")
        ),
    )


def find_released_actions(root: Path) -> dict[str, Path]:
    """Folders of the actions under a benchmark folder, captions/<kind>/<action>, by 'kind/action'. Never raises."""
    folders = (folder for folder, _, files in walk_files(root) if any(file.name == "crop.csv" for file in files))
    actions = (folder for folder in folders if folder.parent.parent.name == "captions")
    return {f"{folder.parent.name}/{folder.name}": folder for folder in actions}
