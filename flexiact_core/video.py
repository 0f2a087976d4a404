"""Pixels: ranges, layouts, sizes, how many frames the CogVideoX VAE can return, and frames from and to video files.

Shape letters: B batch, T frames, C channels, H height, W width.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .checkpoint import write_whole
from .errors import CheckpointError, SettingError, ShapeError

# 8x in the VAE, then patches of 2.
SIZE_MULTIPLE = 16
FRAME_MULTIPLE = 8

# At 8 fps and 1080p, a minute of frames is 3 GB.
MAX_SECONDS = 60

# Of a clip that stands for an action in a list.
PREVIEW_SIDE_PX = 256
PREVIEW_SECONDS = 6


def check_num_frames(num_frames: int) -> int:
    """`num_frames`, if the VAE returns exactly as many frames as went in: 8k+1.

    The VAE halves time twice and decodes latent frames in pairs; an even number of latent frames gives four
    frames each, one group more than went in.
    Raises SettingError naming the nearest counts that work.
    """
    if num_frames >= 1 and (num_frames - 1) % FRAME_MULTIPLE == 0:
        return num_frames
    below = max(1, (num_frames - 1) // FRAME_MULTIPLE * FRAME_MULTIPLE + 1)
    above = below + FRAME_MULTIPLE
    nearest, other = (below, above) if num_frames - below <= above - num_frames else (above, below)
    raise SettingError(
        f"num_frames {num_frames}: the video autoencoder returns exactly 8k+1 frames. "
        f"Nearest: {nearest}; on the other side: {other}."
    )


def check_size(width_px: int, height_px: int) -> None:
    """Nothing, if both sides are multiples of 16 pixels. Raises SettingError naming the nearest that are."""
    for name, size in (("width", width_px), ("height", height_px)):
        if size < SIZE_MULTIPLE or size % SIZE_MULTIPLE:
            nearest = max(SIZE_MULTIPLE, round(size / SIZE_MULTIPLE) * SIZE_MULTIPLE)
            raise SettingError(
                f"{name} {size}: the model works in steps of {SIZE_MULTIPLE} pixels. Nearest: {nearest}."
            )


def check_frames(frames: Tensor, name: str) -> Tensor:
    """RGB frames (T, H, W, 3) in 0..1 from frames with 1, 3 or 4 channels.

    Transparent pixels are laid over white, grey ones are repeated on three channels, and values outside 0..1
    are clamped. `name` is what the message calls the input.
    Raises ShapeError if the layout is another, a side is under 16 pixels, or a value is not a number.
    """
    if frames.ndim != 4:
        raise ShapeError(
            f"{name}: frames x height x width x channels expected, {frames.ndim} dimensions found "
            f"({list(frames.shape)}). Connect an IMAGE output."
        )
    num_frames, height_px, width_px, channels = frames.shape
    if num_frames == 0:
        raise ShapeError(f"{name}: no frame in it. Connect an image or a video that has at least one.")
    if channels not in (1, 3, 4):
        raise ShapeError(f"{name}: {channels} channels found; grey (1), RGB (3) or RGBA (4) expected.")
    if min(height_px, width_px) < SIZE_MULTIPLE:
        raise ShapeError(
            f"{name}: {width_px}x{height_px} pixels is too small; at least {SIZE_MULTIPLE}x{SIZE_MULTIPLE} is needed."
        )
    if not torch.isfinite(frames).all():
        raise ShapeError(
            f"{name}: some pixels are not numbers (NaN or infinite). Look at the node that makes the picture."
        )
    frames = frames.float().clamp(0, 1)
    if channels == 1:
        return frames.expand(-1, -1, -1, 3)
    if channels == 4:
        opacity = frames[..., 3:]
        return frames[..., :3] * opacity + (1 - opacity)
    return frames


def check_single_image(image: Tensor, name: str) -> Tensor:
    """One RGB picture (1, H, W, 3) in 0..1. Raises ShapeError as check_frames does, and for several pictures."""
    image = check_frames(image, name)
    if image.shape[0] != 1:
        raise ShapeError(
            f"{name}: one picture expected, {image.shape[0]} found. Take one out with 'ImageFromBatch', or split "
            "the batch into a list with 'Rebatch Images' (batch size 1) to animate each."
        )
    return image


def fit_frames(frames: Tensor, width_px: int, height_px: int) -> Tensor:
    """Frames (T, height_px, width_px, 3): scaled to cover the size with nothing stretched, then cut at the centre.

    frames is (T, H, W, 3) in 0..1.
    """
    _, height, width, _ = frames.shape
    scale = max(width_px / width, height_px / height)
    scaled_height, scaled_width = max(height_px, round(height * scale)), max(width_px, round(width * scale))
    channels_first = frames.permute(0, 3, 1, 2)
    if (scaled_height, scaled_width) != (height, width):
        channels_first = F.interpolate(
            channels_first, (scaled_height, scaled_width), mode="bicubic", antialias=True
        ).clamp(0, 1)
    top, left = (scaled_height - height_px) // 2, (scaled_width - width_px) // 2
    return channels_first[..., top : top + height_px, left : left + width_px].permute(0, 2, 3, 1)


def to_model_pixels(frames: Tensor) -> Tensor:
    """Pixels (1, 3, T, H, W) in -1..1, the VAE's layout, from frames (T, H, W, 3) in 0..1."""
    return frames.permute(3, 0, 1, 2)[None] * 2 - 1


def to_frames(pixels: Tensor) -> Tensor:
    """Frames (T, H, W, 3) in 0..1, float32, from pixels (1, 3, T, H, W) in -1..1."""
    return (pixels[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0).contiguous()


def read_video(source: Path | str | BytesIO, fps: float, start: float = 0.0, duration: float = 0.0) -> Tensor:
    """Frames (T, H, W, 3), uint8, of a video file at `fps`: for each moment the frame nearest to it.

    Moments count from second `start`; duration 0 is to the end. Goes by the frames' own time stamps, so a variable
    frame rate is read right, and by the rotation that phones note.
    Raises CheckpointError if the file cannot be read, SettingError if nothing or more than a minute would be used.
    """
    import av

    name = Path(source).name if isinstance(source, str | Path) else "video"
    wanted = max(1, round(duration * fps)) if duration else MAX_SECONDS * fps + 1
    frames: list[Tensor] = []
    shown = None
    try:
        with av.open(source) as container:
            if not container.streams.video:
                raise CheckpointError(f"{name}: no picture in it, only sound. Choose a video.")
            for time, frame in _timed_frames(container):
                # All moments that lie nearer to the last frame than to this one are the last one's.
                while shown and len(frames) < wanted and start + len(frames) / fps < (shown[0] + time) / 2 - 1e-6:
                    frames.append(_to_tensor(shown[1]))
                if len(frames) >= wanted:
                    break
                shown = (time, frame)
    except (av.FFmpegError, OSError) as error:
        raise CheckpointError(f"{name}: this video cannot be read ({error}). Choose or encode it again.") from error
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
    Raises CheckpointError if it cannot be encoded or saved.
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
        raise CheckpointError(
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
