"""Small real video files for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np


def make_video(
    file: Path, num_frames: int, fps: int, width_px: int = 64, height_px: int = 48, times_ms: list[int] | None = None
) -> Path:
    """`file`, an mp4 whose frame i is an even grey of brightness 4 * i, with a bright bar that moves.

    times_ms are the moments of the frames, in milliseconds, for a variable rate.
    """
    import av

    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.options = width_px, height_px, "yuv420p", {"crf": "4"}
        if times_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(num_frames):
            pixels = np.full((height_px, width_px, 3), index * 4 % 256, np.uint8)
            left = index * 2 % (width_px - 8)
            pixels[height_px // 2 :, left : left + 8] = 255
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = times_ms[index] if times_ms else index
            if times_ms:
                frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(file)
