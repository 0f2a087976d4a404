"""Frames from and to video files, as a player shows them.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from .checks import check_number
from .decoding import SeekFailed, name_of, open_media, pick_video, timed_frames
from .errors import FileError, SettingError, why
from .shown_frames import read_display, show_frame
from .video import fit_frames
from .weight_files import write_whole

MAX_SECONDS = 60

# Of a clip that stands for an action in a list.
PREVIEW_SIDE_PX = 256
PREVIEW_SECONDS = 6


def read_video(
    source: Path | str | BytesIO,
    fps: float,
    start: float = 0.0,
    duration: float = 0.0,
    *,
    size: tuple[int, int] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_packet: Callable[[], None] = lambda: None,
) -> Tensor:
    """Frames (T, H, W, 3), uint8, of a video file at `fps`, as a player shows them; at each moment the nearest one.

    Moments count from second `start`; duration 0 is to the end. Goes by the frames' own time stamps, so a variable
    frame rate is read right; frames without any follow each other at the stream's rate, and so do those after a clock
    that falls back or jumps. Turned, mirrored and in square pixels, transparent parts over white.
    With a size, (width, height) in pixels, each frame is scaled to cover it and cut at the centre as it is decoded:
    memory does not depend on the size of the source. Without one, frames come in their own size, up to that of HD.
    What is damaged is left out, and the frame before it shown on.
    on_note is called with a sentence where the frames differ from what a player shows (HDR, clocks, damage). on_packet
    is called before each packet is decoded, and may raise to stop.
    Raises FileError if the file cannot be read or holds no video, SettingError if a number or a size cannot be used,
    nothing is left, or more than a minute would be used.
    """
    check_number("fps", fps, 0.01)
    check_number("start", start, 0)
    check_number("duration", duration, 0)
    wanted = max(1, round(duration * fps)) if duration else int(MAX_SECONDS * fps) + 1
    note = _noting(on_note, name_of(source))
    read = partial(_read, source, fps, start, wanted, size, note, on_packet)
    try:
        return read(start)
    except SeekFailed:
        return read(0.0)


def within_window(start: float, duration: float, window_start: float, window_duration: float) -> tuple[float, float]:
    """Start and duration in seconds, in the file, of a stretch that is counted from the start of a window of it.

    A duration of 0 is to the end: of the window, or of the file where the window's own is 0.
    Raises SettingError if nothing is left, or a number cannot be used.
    """
    start, duration = check_number("start", start, 0), check_number("duration", duration, 0)
    if not window_duration:
        return window_start + start, duration
    left = window_duration - start
    if left <= 0:
        raise SettingError(f"start {start:g} s: the trimmed video has {window_duration:g} seconds. Start earlier.")
    return window_start + start, min(duration or left, left)


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
    pixels = fit_frames(frames[: PREVIEW_SECONDS * fps].float(), width, height)

    try:
        return write_whole(path, partial(_encode, frames=pixels, fps=fps))
    except (av.FFmpegError, ValueError) as error:
        raise FileError(
            f"{Path(path).name}: this preview could not be encoded ({why(error)}). Everything works without it."
        ) from error


def encode_video(frames: Tensor, fps: int) -> bytes:
    """An .mp4 file (H.264, near to lossless) of frames (T, H, W, 3) in 0..1, at `fps` per second.

    The same frames give the same bytes on machines with the same libraries. Sides that are odd lose a row or column.
    Raises FileError if they cannot be encoded.
    """
    import av

    # How the encoder shares its work among threads shows in the bytes; and with mbtree, what was in memory before.
    options = {"crf": "12", "preset": "fast", "x264-params": "threads=1:lookahead_threads=1:mbtree=0"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "video.mp4"
        try:
            _encode(str(file), frames, fps, options)
        except (av.FFmpegError, ValueError) as error:
            reason = why(error)
            raise FileError(f"video: these frames could not be encoded ({reason}). Update the package av.") from error
        return file.read_bytes()


def _encode(target: str, frames: Tensor, fps: int, options: Mapping[str, str] | None = None) -> None:
    import av

    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    with av.open(target, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(
            "h264", rate=fps, width=width, height=height, pix_fmt="yuv420p", options=dict(options or {})
        )
        for frame in frames[:, :height, :width]:
            picture = (frame.float() * 255).round().byte().cpu().contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def _read(
    source: Path | str | BytesIO, fps: float, start: float, wanted: int, size: tuple[int, int] | None,
    note: Callable[[str], None], on_packet: Callable[[], None], seek_to: float,
) -> Tensor:  # fmt: skip
    frames: list[Tensor] = []
    end, display = 0.0, None
    with open_media(source) as (name, container):
        stream = pick_video(name, container)
        for begin, end, frame in timed_frames(container, stream, note, on_packet, seek_to):
            shown = None
            while len(frames) < wanted and begin - 1e-6 <= start + len(frames) / fps < end - 1e-6:
                if shown is None:
                    display = display or read_display(stream, frame)
                    shown = show_frame(frame, display, size)
                    size = size or (shown.shape[1], shown.shape[0])
                frames.append(shown)
            if len(frames) >= wanted:
                break
    return _checked(name, frames, fps, start, end)


def _checked(name: str, frames: list[Tensor], fps: float, start: float, end: float) -> Tensor:
    if not end:
        raise FileError(f"{name}: no frame in it. Choose another video, or encode it again.")
    if not frames:
        raise SettingError(f"start {start:g} s: {name} ends before that, after {end:.1f} s. Start earlier.")
    if len(frames) > MAX_SECONDS * fps:
        raise SettingError(
            f"{name}: more than {MAX_SECONDS} seconds would be used. Trim it: give start and duration in Prepare "
            "Action Clips, or use a shorter video."
        )
    return torch.stack(frames)


def _noting(on_note: Callable[[str], None] | None, name: str) -> Callable[[str], None]:
    # Each note once, however often a clock jumps.
    said = set()

    def note(text: str) -> None:
        if on_note is not None and text not in said:
            said.add(text)
            on_note(f"{name}: {text}")

    return note
