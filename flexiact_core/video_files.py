"""Frames from and to video files, as a player shows them.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from .checks import check_number
from .errors import FileError, SettingError, why
from .shown_frames import check_source_size, hdr_kind, read_display, show_frame
from .video import fit_frames
from .weight_files import write_whole

MAX_SECONDS = 60

# A longer pause between two frames is a clock that was set anew, unless the frame before says that it lasts so long.
MAX_PAUSE_SECONDS = 60
MAX_PAUSE_SECONDS_BROADCAST = 10

# Decoders hand out frames that are out of order by no more than this many.
MAX_OUT_OF_ORDER = 3

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
) -> Tensor:
    """Frames (T, H, W, 3), uint8, of a video file at `fps`, as a player shows them; at each moment the nearest one.

    Moments count from second `start`; duration 0 is to the end. Goes by the frames' own time stamps, so a variable
    frame rate is read right; frames without any follow each other at the stream's rate, and so do those after a clock
    that falls back or jumps. Turned, mirrored and in square pixels, transparent parts over white.
    With a size, (width, height) in pixels, each frame is scaled to cover it and cut at the centre as it is decoded:
    memory does not depend on the size of the source. Without one, frames come in their own size, up to that of HD.
    on_note is called with a sentence where the frames differ from what a player shows (HDR, clocks).
    Raises FileError if the file cannot be read or holds no video, SettingError if a number or a size cannot be used,
    nothing is left, or more than a minute would be used.
    """
    check_number("fps", fps, 0.01)
    check_number("start", start, 0)
    check_number("duration", duration, 0)
    wanted = max(1, round(duration * fps)) if duration else int(MAX_SECONDS * fps) + 1
    frames: list[Tensor] = []
    end = 0.0
    with _opened(source) as (name, container):
        stream = _pick_stream(name, container)
        display = None
        for begin, end, frame in _timed_frames(container, stream, _noting(on_note, name)):
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
            f"{Path(path).name}: this preview could not be encoded ({why(error)}). Everything works without it."
        ) from error


@contextmanager
def _opened(source: Path | str | BytesIO) -> Iterator[tuple]:
    import av

    in_memory = isinstance(source, BytesIO)
    name = "video" if in_memory else Path(source).name
    if not in_memory and not Path(source).is_file():
        # A device or a pipe could be read without end.
        raise FileError(f"{name}: no video file of that name is there. Choose another.")
    try:
        with nullcontext(source) if in_memory else Path(source).open("rb") as file:
            file.seek(0)
            # An opened file, and no protocol: what calls itself a video and is a list of addresses opens none of them.
            with av.open(file, options={"protocol_whitelist": "none"}) as container:
                yield name, container
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise FileError(f"{name}: this video cannot be read ({reason}). Choose or encode it again.") from error


def _pick_stream(name: str, container):
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not videos:
        found = "only sound with a cover" if container.streams.video else "only sound"
        raise FileError(f"{name}: no video in it, {found}. Choose a video.")
    stream = next((stream for stream in videos if stream.disposition & Disposition.default), videos[0])
    check_source_size(stream.width, stream.height)
    stream.thread_type = "AUTO"
    return stream


def _timed_frames(container, stream, note: Callable[[str], None]) -> Iterator[tuple]:
    # Each frame with the stretch of time in which no other is nearer: seconds from the first frame, begin and end.
    waiting, begin = None, 0.0
    for time, lasts, frame in _clocked_frames(container, stream, note):
        if waiting is not None:
            middle = (waiting[0] + time) / 2
            yield begin, middle, waiting[2]
            begin = middle
        waiting = time, lasts, frame
    if waiting is not None:
        yield begin, max(begin, waiting[0] + waiting[1]), waiting[2]


def _clocked_frames(container, stream, note: Callable[[str], None]) -> Iterator[tuple]:
    # Each frame with its second from the first one on, which never falls back, and the seconds that it lasts.
    from av.format import Flags

    period = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    broadcast = container.format.flags & Flags.ts_discont.value
    longest = MAX_PAUSE_SECONDS_BROADCAST if broadcast else MAX_PAUSE_SECONDS
    time, lasts, offset = None, 0.0, None
    for frame in container.decode(stream):
        if time is None and (hdr := hdr_kind(frame)):
            note(
                f"HDR ({hdr}). Its colours are taken as they are stored, paler than players show them; where that "
                "matters, convert it to SDR first."
            )
        due = 0.0 if time is None else time + lasts
        if frame.time is not None and offset is None:
            offset = due - frame.time
        stamped = due if frame.time is None else frame.time + offset
        step = stamped - (time or 0.0)
        if step < -MAX_OUT_OF_ORDER * period or step > max(longest, lasts + period):
            note("its clock jumps; the frames after a jump follow those before it.")
            offset, stamped = due - frame.time, due
        time = max(stamped, time or 0.0)
        lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else period
        yield time, lasts, frame


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
