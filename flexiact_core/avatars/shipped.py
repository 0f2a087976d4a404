"""The people that ship with the pack: a man and a woman, dressed, with six clips each. CC0, see people/LICENSE.md."""

from __future__ import annotations

from pathlib import Path

from ..errors import SettingError
from .avatar import Avatar
from .gltf import load_avatar

SHIPPED = ("man", "woman")
CLIPS = ("walk", "wave", "jump", "sit", "turn", "dance")


def avatar_path(name: str) -> Path:
    """Where the file of a shipped person is. Raises SettingError for another name."""
    if name not in SHIPPED:
        raise SettingError(f"'{name}' is none of the people that ship: {', '.join(SHIPPED)}.")
    return Path(__file__).parent / "people" / f"{name}.glb"


def shipped_avatar(name: str) -> Avatar:
    """The shipped person of that name, as load_avatar reads it."""
    return load_avatar(avatar_path(name))
