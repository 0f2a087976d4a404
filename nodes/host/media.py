"""IMAGE and VIDEO values of ComfyUI, to frames and back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from comfy_api.latest import InputImpl, Types

from . import progress
from .memory import normal_tensors, ordinary


def to_video(frames, fps: float, sound=None):
    """A VIDEO value at `fps` frames per second from frames (T, H, W, 3) in 0..1, with an AUDIO value if given."""
    return InputImpl.VideoFromComponents(
        Types.VideoComponents(images=frames, audio=sound, frame_rate=Fraction(fps))
    )  # fmt: skip


def sound_of(video, seconds: float):
    """The sound of a VIDEO value as an AUDIO value of exactly so many seconds, cut or with silence after it.

    None if it has none. Raises FileError if its file cannot be read.
    """
    from ...flexiact_core.audio import fit_sound, read_sound

    with normal_tensors():
        if isinstance(video, InputImpl.VideoFromFile):
            start, duration = video.get_active_trim_window()
            wanted = min(filter(None, (seconds, duration)))
            source = video.get_stream_source()
            read = read_sound(source, start, wanted, on_packet=progress.stop_if_cancelled)
            if read is None:
                return None
            samples, rate = read[0][None], read[1]
        else:
            sound = video.get_components().audio
            if sound is None:
                return None
            samples, rate = ordinary(sound["waveform"]), sound["sample_rate"]
        return {"waveform": fit_sound(samples, rate, seconds), "sample_rate": rate}


def from_reference(
    reference, image_fps: float, file_fps: float, start: float = 0.0, duration: float = 0.0, size=None
):  # fmt: skip
    """Frames (T, H, W, C) of a VIDEO or IMAGE value and their speed: from second `start` on, for `duration` seconds.

    A video file gives file_fps frames per second, by its own time stamps, of a size (width, height) if one is given;
    an IMAGE batch is taken to be at image_fps. duration 0 is to the end. What a player would show otherwise is said.
    Raises FileError and SettingError if it cannot be read or nothing is left.
    """
    from ...flexiact_core.clips import trim_frames
    from ...flexiact_core.video_files import within_window

    if isinstance(reference, InputImpl.VideoFromFile):
        stretch = within_window(start, duration, *reference.get_active_trim_window())
        with normal_tensors():
            source = reference.get_stream_source()
            return read_clip(source, file_fps, *stretch, size=size), file_fps
    fps = image_fps
    if hasattr(reference, "get_components"):
        components = reference.get_components()
        reference, fps = components.images, float(components.frame_rate)
    return ordinary(trim_frames(reference, fps, start, duration)), fps


def read_clip(source, fps: float, start: float = 0.0, duration: float = 0.0, size=None):
    """Frames (T, H, W, 3), uint8, of a video file, as read_video() gives them; Cancel stops it, and notes are said."""
    from ...flexiact_core.video_files import read_video

    on_packet = progress.stop_if_cancelled
    return read_video(source, fps, start, duration, size=size, on_note=progress.say, on_packet=on_packet)


def read_image(path: Path):
    """An IMAGE value (1, H, W, 3) of a picture file. Raises FileError if it cannot be read."""
    from ...flexiact_core.picture_files import read_picture

    return read_picture(path)


def read_avatar(model_3d):
    """The avatar in a FILE_3D value; what lies beside a .gltf on disk is read from its folder.

    Raises FileError if it is no glTF, or cannot be drawn.
    """
    from ...flexiact_core.avatars import gltf

    if model_3d.is_disk_backed:
        return gltf.load_avatar(model_3d.get_source())
    return gltf.read_avatar(model_3d.get_bytes(), f"model.{model_3d.format or 'glb'}")
