"""What is decoded of a video or sound file: opened without reaching out of it, damage left out, frames in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path

from .errors import FileError
from .shown_frames import check_source_size, hdr_kind

# A longer pause between two frames is a clock that was set anew, unless the frame before says that it lasts so long.
MAX_PAUSE_SECONDS = 60
MAX_PAUSE_SECONDS_BROADCAST = 10

# Decoders hand out frames that are out of order by no more than this many.
MAX_OUT_OF_ORDER = 3

# What lies before a stretch is passed over where it is longer than this; from so long before it on, all is decoded.
SEEK_FROM_SECONDS = 10
DECODED_BEFORE_SECONDS = 2

Note = Callable[[str], None]


def name_of(source: Path | str | BytesIO) -> str:
    """What sentences call a video."""
    return "video" if isinstance(source, BytesIO) else Path(source).name


@contextmanager
def open_media(source: Path | str | BytesIO, what: str = "this video") -> Iterator[tuple]:
    """Its name and PyAV's container of it; `what` is what sentences call it.

    Raises FileError if it is no file, or PyAV cannot read it, also while it is read.
    """
    import av

    in_memory, name = isinstance(source, BytesIO), name_of(source)
    if not in_memory and not Path(source).is_file():
        # A device or a pipe could be read without end.
        raise FileError(f"{name}: no video file of that name is there. Choose another.")
    try:
        with nullcontext(source) if in_memory else Path(source).open("rb") as file:
            file.seek(0)
            # An opened file, and no protocol: what calls itself a video and is a list of addresses opens none of them.
            # Titles in other alphabets may be in no UTF-8.
            with av.open(file, options={"protocol_whitelist": "none"}, metadata_errors="replace") as container:
                yield name, container
    except (av.FFmpegError, OSError, UnicodeError, ArithmeticError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise FileError(f"{name}: {what} cannot be read ({reason}). Choose or encode it again.") from error


def pick_video(name: str, container):
    """The stream of a container that a player shows.

    Raises FileError if there is none, or one of a kind that cannot be decoded, SettingError for huge ones.
    """
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not videos:
        found = "only sound with a cover" if container.streams.video else "only sound"
        raise FileError(f"{name}: no video in it, {found}. Choose a video.")
    stream = next((stream for stream in videos if stream.disposition & Disposition.default), videos[0])
    check_has_decoder(name, stream)
    check_source_size(stream.width, stream.height)
    stream.thread_type = "AUTO"
    return stream


def check_has_decoder(name: str, stream) -> None:
    """Passes if a stream can be decoded. Raises FileError otherwise."""
    if stream.codec_context is None:
        raise FileError(f"{name}: its {stream.type} is of a kind that is not decoded here. Encode it as H.264 and AAC.")


def decode(container, stream, note: Note, on_packet: Callable[[], None]) -> Iterator:
    """The frames of a stream, from where the container stands; what is damaged is left out, as players do, and noted.

    on_packet is called before each packet is decoded; it may raise to stop.
    Raises PyAV's InvalidDataError if nothing at all can be decoded.
    """
    import av

    damage, any_frame = None, False
    packets = container.demux(stream)
    while True:
        packet, frames = None, ()
        try:
            packet = next(packets)
            on_packet()
            frames = packet.decode()
        except StopIteration:
            break
        except av.InvalidDataError as error:
            damage = error
            if packet is None:  # what is damaged is the file between its packets: players stop here
                frames = stream.decode(None)
                packets = iter(())
        for frame in frames:
            any_frame = True
            yield frame
    if damage is not None:
        if not any_frame:
            raise damage
        note("it is damaged in places; what cannot be decoded is left out.")


def timed_frames(container, stream, note: Note, on_packet: Callable[[], None], start: float = 0.0) -> Iterator[tuple]:
    """Each frame of a video with the stretch of time in which no other is nearer: begin, end, frame.

    Both are seconds from the first frame on. What lies long before second `start` is not decoded where the file allows
    that; raises SeekFailed where it turned out not to.
    """
    waiting, begin = None, 0.0
    for time, lasts, frame in _clocked_frames(container, stream, note, on_packet, start):
        if waiting is not None:
            middle = (waiting[0] + time) / 2
            yield begin, middle, waiting[2]
            begin = middle
        waiting = time, lasts, frame
    if waiting is not None:
        yield begin, max(begin, waiting[0] + waiting[1]), waiting[2]


class SeekFailed(Exception):
    """A stretch of a file could not be gone to: what lies before it has to be decoded."""


class _Clock:
    """When frames are shown, in seconds from the first one on; goes on where the file's own clock jumps."""

    def __init__(self, container, stream, note: Note):
        from av.format import Flags

        self.note = note
        self.period = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        self.broadcast = bool(container.format.flags & Flags.ts_discont.value)
        self.longest = MAX_PAUSE_SECONDS_BROADCAST if self.broadcast else MAX_PAUSE_SECONDS
        self.time: float | None = None
        self.lasts, self.offset = 0.0, None

    def place(self, frame) -> tuple[float, float]:
        """The second at which the next frame is shown, and the seconds that it lasts."""
        due = 0.0 if self.time is None else self.time + self.lasts
        if frame.time is not None and self.offset is None:
            self.offset = due - frame.time
        stamped = due if frame.time is None else frame.time + self.offset
        step = stamped - (self.time or 0.0)
        if step < -MAX_OUT_OF_ORDER * self.period or step > max(self.longest, self.lasts + self.period):
            self.note("its clock jumps; the frames after a jump follow those before it.")
            self.offset, stamped = due - frame.time, due
        return self._set(frame, max(stamped, self.time or 0.0))

    def go_to(self, frame) -> tuple[float, float]:
        """As place(), for the first frame after a seek, which has a time."""
        return self._set(frame, frame.time + self.offset)

    def _set(self, frame, time: float) -> tuple[float, float]:
        self.time = time
        self.lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else self.period
        return self.time, self.lasts


def _clocked_frames(container, stream, note: Note, on_packet: Callable[[], None], start: float) -> Iterator[tuple]:
    # Each frame with its second from the first one on, and the seconds that it lasts.
    clock = _Clock(container, stream, note)
    frames = decode(container, stream, note, on_packet)
    for frame in frames:
        if clock.time is None and (hdr := hdr_kind(frame)):
            note(
                f"HDR ({hdr}). Its colours are taken as they are stored, paler than players show them; where that "
                "matters, convert it to SDR first."
            )
        is_first = clock.time is None
        yield *clock.place(frame), frame
        if is_first and start > SEEK_FROM_SECONDS and clock.offset is not None and not clock.broadcast:
            break
    else:
        return
    frames = _frames_from(container, stream, start - DECODED_BEFORE_SECONDS - clock.offset, note, on_packet)
    first = next(frames, None)
    if first is None or first.time is None or first.time + clock.offset > start:
        raise SeekFailed
    yield *clock.go_to(first), first
    for frame in frames:
        yield *clock.place(frame), frame


def _frames_from(container, stream, second: float, note: Note, on_packet: Callable[[], None]) -> Iterator:
    import av

    try:
        container.seek(int(second / stream.time_base), stream=stream)
        yield from decode(container, stream, note, on_packet)
    except av.FFmpegError as error:
        raise SeekFailed from error
