"""Small real video files for tests."""

from __future__ import annotations

import csv
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

HEADER = ["video_path", "start_frame", "end_frame", "fps", "mask_id", "caption"]


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


def write_frames(
    file: Path,
    frames: np.ndarray,
    fps: int,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pixel_aspect: str = "1/1",
    matrix: str | None = None,
    transfer: int | None = None,
    times_s: list[float] | None = None,
    container_format: str | None = None,
) -> Path:
    """`file`, a video of uint8 frames (T, H, W, 3); at the moments times_s, seconds, if given.

    matrix is that of RGB to YUV ('ITU709', 'ITU601'), and is not noted in the file; transfer, a number of ITU-T H.273,
    is.
    """
    import av

    with av.open(str(file), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": "4"} if codec == "libx264" else {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect)
        if transfer is not None:
            stream.codec_context.color_trc = transfer
        if times_s:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=pix_fmt, dst_colorspace=matrix)
            if transfer is not None:
                frame.color_trc = transfer
            frame.colorspace = 2
            frame.pts = round(times_s[index] * 1000) if times_s else index
            frame.time_base = Fraction(1, 1000) if times_s else Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(file)


def set_display_matrix(file: Path, a: float, b: float, c: float, d: float) -> Path:
    """`file`, an .mp4 of one track, with this display matrix: the pixel (x, y) is shown at (a x + c y, b x + d y)."""
    content = bytearray(Path(file).read_bytes())
    start = content.index(b"tkhd") + 44
    rows = (a, b, 0, c, d, 0, 0, 0, 1 << 14)
    content[start : start + 36] = struct.pack(">9i", *(round(value * 65536) for value in rows))
    Path(file).write_bytes(content)
    return Path(file)


def write_rows(file, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows(rows)
    return file
