"""Sound that goes with frames: cut or filled to their length, and read from a file.

Shape letters: C channels, N samples.
"""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import FileError, why


def fit_sound(samples: Tensor, rate: int, seconds: float) -> Tensor:
    """Sound (..., N) of exactly so many seconds at `rate` samples per second: cut, or followed by silence."""
    wanted = round(seconds * rate)
    return F.pad(samples[..., :wanted], (0, max(0, wanted - samples.shape[-1])))


def read_sound(source: Path | str | BytesIO, start: float = 0.0, seconds: float = 0.0) -> tuple[Tensor, int] | None:
    """Sound (C, N), float32, of a video file from second `start` on, and its samples per second; None if it has none.

    seconds 0 is to the end. No picture is decoded. Raises FileError if the file cannot be read.
    """
    import av

    name = Path(source).name if isinstance(source, str | Path) else "video"
    pieces: list[Tensor] = []
    try:
        if isinstance(source, BytesIO):
            source.seek(0)
        with av.open(source) as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            rate, layout = stream.codec_context.sample_rate, stream.codec_context.layout.name
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
            length = math.inf if not seconds else round((start + seconds) * rate)
            done = 0
            for frame in container.decode(stream):
                for piece in resampler.resample(frame):
                    pieces.append(torch.from_numpy(piece.to_ndarray().copy()))
                    done += pieces[-1].shape[-1]
                if done >= length:
                    break
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FileError(f"{name}: its sound cannot be read ({why(error)}). Choose or encode it again.") from error
    if not pieces:
        return None
    sound = torch.cat(pieces, -1)[..., round(start * rate) :]
    return (sound if not seconds else sound[..., : round(seconds * rate)]), rate
