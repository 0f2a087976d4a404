"""Evaluate Video: a video measured as the papers do, with what is connected to the node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import inputs
from .host import folders, media, memory, progress

if TYPE_CHECKING:
    from torch import Tensor

    from ..flexiact_core.metrics.tracks import Tracks

CLIPS = folders.ModelFolder(
    "clip_vision",
    "hf download openai/clip-vit-large-patch14 --local-dir {folder}/clip-vit-large-patch14",
    "the CLIP that papers measure with",
)
NO_CLIP = "none"
# What a CLIP takes beside its weights for the frames that it sees at once.
CLIP_BYTES = 600_000_000


class EvaluateVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EvaluateVideo",
            display_name="Evaluate Video",
            category="FlexiAct/measures",
            description=(
                "Measures a video as the papers on action transfer do: CLIP's text similarity and consistencies, "
                "motion fidelity to a reference, and PSNR, SSIM and LPIPS where the true video is known. What is not "
                "connected is not measured, and the table says so."
            ),
            search_aliases=["clip score", "motion fidelity", "text similarity", "consistency", "ssim", "lpips", "psnr"],
            inputs=[
                io.Image.Input("frames", tooltip="The video that is measured, 2 frames or more."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip="What the video should show; CLIP reads about 75 tokens of it. Empty: no text similarity.",
                ),
                io.Combo.Input(
                    "clip",
                    options=[NO_CLIP, *find_clips()],
                    default=NO_CLIP,
                    tooltip=(
                        "A folder in models/clip_vision with a whole CLIP in transformers' layout, words and pictures. "
                        "none: the CLIP_VISION that is connected, which reads no words. To fetch the papers': "
                        + CLIPS.command()
                    ),
                ),
                io.Float.Input(
                    "fps",
                    default=inputs.RELEASED.fps,
                    min=1.0,
                    max=120.0,
                    step=0.1,
                    tooltip=(
                        "Frames per second of frames. A reference VIDEO is read at this speed, so that both compare."
                    ),
                ),
                io.MultiType.Input(
                    "reference",
                    types=[io.Video, io.Image],
                    optional=True,
                    tooltip=(
                        "The video whose motion is to be found again, for motion fidelity; frames at the speed of fps. "
                        "Of the longer of both only the beginning counts."
                    ),
                ),
                io.Image.Input(
                    "truth",
                    optional=True,
                    tooltip="The video as it should be, as many frames of the same size: for PSNR, SSIM and LPIPS.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="ComfyUI's CLIP, for the two consistencies where no clip is chosen. It reads no words.",
                ),
                io.Tracks.Input(
                    "tracks",
                    optional=True,
                    tooltip="Points followed through frames, from any point tracker. Open: OpenCV's optical flow.",
                ),
                io.Tracks.Input(
                    "reference_tracks",
                    optional=True,
                    tooltip="Points followed through the reference by the same tracker. Open: OpenCV's optical flow.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="All measures with their ends, and what is missing."),
                io.String.Output(display_name="values", tooltip="The measures by name, as JSON."),
                io.Image.Output(
                    display_name="picture",
                    tooltip="Where the points went: of the reference left or above, of frames right or below.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, clip):
        return clip in (None, NO_CLIP) or folders.check_listed(clip, find_clips(), CLIPS.missing(clip))

    @classmethod
    def fingerprint_inputs(cls, clip=None, **_):
        return folders.files_state(find_clips().get(clip))

    @classmethod
    def execute(cls, frames, prompt, clip, fps, truth=None, clip_vision=None, **motion) -> io.NodeOutput:
        from ..flexiact_core.metrics.evaluate import evaluate_video

        video = memory.ordinary(frames)[..., :3].cpu()
        truth = None if truth is None else memory.ordinary(truth)[..., :3].cpu()
        with memory.normal_tensors():
            followed = follow_motion(video, fps, **motion)
            sees = choose_clip(clip, clip_vision)
            made = evaluate_video(
                video, prompt=prompt, clip=sees, tracks=followed.result, reference=followed.reference, exact=truth,
                no_tracks=followed.missing,
            )  # fmt: skip
        progress.say(made.table())
        return io.NodeOutput(made.table(), made.as_json(), followed.picture)


def find_clips() -> dict[str, Path]:
    """Folders of whole CLIPs in models/clip_vision, by name."""
    from ..flexiact_core.metrics.clip import find_clip_folders

    found: dict[str, Path] = {}
    for root in CLIPS.roots():
        found = find_clip_folders(root) | found
    return dict(sorted(found.items()))


@dataclass(frozen=True, eq=False)
class Followed:
    """Points through reference and result, drawn; or why there are none."""

    reference: Tracks | None
    result: Tracks | None
    picture: Any
    missing: str = ""


def follow_motion(frames: Tensor, fps: float, reference=None, tracks=None, reference_tracks=None) -> Followed:
    """Points of reference and result, as connected or found by the built-in tracker.

    Raises ShapeError for TRACKS that cannot be read; a tracker that is not there is a sentence.
    """
    from ..flexiact_core.errors import SettingError
    from ..flexiact_core.metrics.tracks import draw_tracks, read_tracks, track_points

    if reference is None and reference_tracks is None:
        return Followed(None, None, progress.nothing(), "connect the reference, or points followed through it.")
    shown = frames
    if reference is not None:
        shown = media.from_reference(reference, fps, fps)[0]
        shown = (shown if shown.is_floating_point() else shown / 255)[..., :3].cpu()
    try:
        found = [
            track_points(video, on_frame=progress.LongCall("Following points"))
            if given is None
            else read_tracks(given, name, video.shape[2], video.shape[1])
            for given, name, video in ((reference_tracks, "reference_tracks", shown), (tracks, "tracks", frames))
        ]
    except SettingError as error:
        return Followed(None, None, progress.nothing(), str(error))
    return Followed(*found, draw_tracks([(shown, found[0]), (frames, found[1])]))


def choose_clip(name: str, clip_vision):
    """What sees frames, one of SeesFrames: the CLIP of a folder, else the CLIP_VISION; None for neither.

    Raises FileError if the folder is gone or damaged.
    """
    import comfy.model_management as management

    from ..flexiact_core.metrics.clip import load_clip

    if name == NO_CLIP:
        return None if clip_vision is None else HostClip(clip_vision)
    import torch

    clip = load_clip(folders.path_of(name, find_clips(), CLIPS.missing(name)), torch.device("cpu"))
    devices = management.get_torch_device(), management.unet_offload_device()
    return ManagedClip(clip, memory.to_patcher(clip.model, *devices))


@dataclass(frozen=True, eq=False)
class ManagedClip:
    """A CLIP of transformers in ComfyUI's memory; Cancel stops it between frames."""

    clip: Any
    patcher: Any

    def see(self, frames: Tensor) -> Tensor:
        """Features (T, D) of frames (T, H, W, 3) in 0..1."""
        with memory.on_device(self.patcher, CLIP_BYTES):
            return in_parts(self.clip.see, frames)

    def read(self, words: str) -> Tensor:
        """Features (D,) of words."""
        with memory.on_device(self.patcher, CLIP_BYTES):
            return self.clip.read(words)


@dataclass(frozen=True, eq=False)
class HostClip:
    """ComfyUI's CLIP_VISION: it sees, and reads nothing."""

    clip_vision: Any

    def see(self, frames: Tensor) -> Tensor:
        """Features (T, D) of frames (T, H, W, 3) in 0..1. Raises SettingError if it has none that compare."""
        from ..flexiact_core.metrics.clip import check_features

        return in_parts(
            lambda part: check_features(self.clip_vision.encode_image(part)["image_embeds"], len(part)), frames
        )

    def read(self, words: str) -> None:
        """None: it reads no words."""
        return None


def in_parts(see, frames: Tensor) -> Tensor:
    """What `see` gives of frames, some at a time; Cancel stops it in between."""
    import torch

    from ..flexiact_core.metrics.clip import FRAMES_AT_ONCE

    parts, call = frames.split(FRAMES_AT_ONCE), progress.LongCall("CLIP")
    seen = []
    for index, part in enumerate(parts):
        call(index, len(parts))
        seen.append(see(part))
    return torch.cat(seen)
