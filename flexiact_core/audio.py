"""Sound that goes with frames: cut or filled to their length, and read from a file.

Shape letters: C channels, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .decoding import check_has_decoder, decode, open_media

# Time stamps of sound are rounded; what is missing longer is damage, and longest, a clock that was set anew.
LEAST_GAP_SECONDS, MOST_GAP_SECONDS = 0.05, 10


def fit_sound(samples: Tensor, rate: int, seconds: float) -> Tensor:
    """Sound (..., N) of exactly so many seconds at `rate` samples per second: cut, or followed by silence."""
    wanted = round(seconds * rate)
    return F.pad(samples[..., :wanted], (0, max(0, wanted - samples.shape[-1])))


def read_sound(
    source: Path | str | BytesIO,
    start: float = 0.0,
    seconds: float = 0.0,
    *,
    on_packet: Callable[[], None] = lambda: None,
) -> tuple[Tensor, int] | None:
    """Sound (C, N), float32, of a video file from second `start` on, and its samples per second; None if it has none.

    seconds 0 is to the end. No picture is decoded, and what is damaged is silent. on_packet is called before each
    packet is decoded, and may raise to stop. Raises FileError if the file cannot be read.
    """
    import av

    with open_media(source, "its sound") as (name, container):
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        check_has_decoder(name, stream)
        rate, layout = stream.codec_context.sample_rate, stream.codec_context.layout.name
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        first = round(start * rate)
        last = first + round(seconds * rate) if seconds else None
        pieces: list[Tensor] = []
        done = 0
        for samples in _samples(decode(container, stream, lambda _: None, on_packet), resampler, rate):
            # What lies before is let go at once: a film's sound takes gigabytes.
            pieces.append(samples[:, max(0, first - done) : None if last is None else max(0, last - done)])
            done += samples.shape[-1]
            if last is not None and done >= last:
                break
    return (torch.cat(pieces, -1), rate) if pieces else None


def _samples(frames: Iterator, resampler, rate: int) -> Iterator[Tensor]:
    """The samples (C, N) of frames, one piece after the other, with silence where some are missing."""
    begin, done = None, 0
    for frame in frames:
        if frame.time is not None:
            begin = frame.time if begin is None else begin
            missing = round((frame.time - begin) * rate) - done
            if LEAST_GAP_SECONDS * rate < missing < MOST_GAP_SECONDS * rate:
                done += missing
                yield torch.zeros(len(frame.layout.channels), missing)
        for piece in resampler.resample(frame):
            samples = torch.from_numpy(piece.to_ndarray().copy())
            done += samples.shape[-1]
            yield samples
