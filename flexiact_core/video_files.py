"""Frames from and to video files, as a player shows them.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from .errors import FileError, SettingError
from .video import fit_frames
from .weight_files import write_whole

# At 8 fps and 1080p, a minute of frames is 3 GB.
MAX_SECONDS = 60

# Of a clip that stands for an action in a list.
PREVIEW_SIDE_PX = 256
PREVIEW_SECONDS = 6


def read_video(source: Path | str | BytesIO, fps: float, start: float = 0.0, duration: float = 0.0) -> Tensor:
    """Frames (T, H, W, 3), uint8, of a video file at `fps`: for each moment the frame nearest to it.

    Moments count from second `start`; duration 0 is to the end. Goes by the frames' own time stamps, so a variable
    frame rate is read right, and by the rotation that phones note.
    Raises FileError if the file cannot be read, SettingError if nothing or more than a minute would be used.
    """
    import av

    name = Path(source).name if isinstance(source, str | Path) else "video"
    wanted = max(1, round(duration * fps)) if duration else MAX_SECONDS * fps + 1
    frames: list[Tensor] = []
    shown = None
    try:
        with av.open(source) as container:
            if not container.streams.video:
                raise FileError(f"{name}: no picture in it, only sound. Choose a video.")
            for time, frame in _timed_frames(container):
                # All moments that lie nearer to the last frame than to this one are the last one's.
                while shown and len(frames) < wanted and start + len(frames) / fps < (shown[0] + time) / 2 - 1e-6:
                    frames.append(_to_tensor(shown[1]))
                if len(frames) >= wanted:
                    break
                shown = (time, frame)
    except (av.FFmpegError, OSError) as error:
        raise FileError(f"{name}: this video cannot be read ({error}). Choose or encode it again.") from error
    if not frames:
        raise SettingError(f"start {start:g} s: {name} ends before that. Start earlier.")
    if len(frames) > MAX_SECONDS * fps:
        raise SettingError(
            f"{name}: more than {MAX_SECONDS} seconds would be used. Trim it: give start and duration in Prepare "
            "Action Clips, or use a shorter video."
        )
    return torch.stack(frames)


def write_preview(path: Path, frames: Tensor, fps: int) -> Path:
    """`path`, an .mp4 (H.264) of the first six seconds of a clip, no side over 256 pixels; whole or not written at all.

    frames is (T, H, W, 3) in 0..1, at `fps` per second.
    Raises FileError if it cannot be encoded or saved.
    """
    import av

    _, height, width, _ = frames.shape
    scale = min(1.0, PREVIEW_SIDE_PX / max(height, width))
    # H.264 keeps colour for squares of two by two pixels.
    width, height = (max(2, round(side * scale / 2) * 2) for side in (width, height))
    pixels = (fit_frames(frames[: PREVIEW_SECONDS * fps].float(), width, height) * 255).round().byte().cpu().numpy()

    def encode(temporary: str) -> None:
        with av.open(temporary, "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("h264", rate=fps, width=width, height=height, pix_fmt="yuv420p")
            for picture in pixels:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())

    try:
        return write_whole(path, encode)
    except (av.FFmpegError, ValueError) as error:
        raise FileError(
            f"{Path(path).name}: this preview could not be encoded ({error}). Everything works without it."
        ) from error


def _timed_frames(container):
    # Seconds from the first frame, and the frame; at the end the moment that gives the last frame its due time.
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    first = time = None
    for frame in container.decode(stream):
        first = frame.time or 0.0 if first is None else first
        time = (frame.time or 0.0) - first
        yield time, frame
    if time is not None:
        yield time + 2 / float(stream.average_rate or 1), None


def _to_tensor(frame) -> Tensor:
    import numpy as np

    pixels = frame.to_ndarray(format="rgb24")
    quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return torch.from_numpy(np.ascontiguousarray(np.rot90(pixels, quarter_turns)))
