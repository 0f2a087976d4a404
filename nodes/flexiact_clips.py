"""FlexiAct's clips: cut from a reference video, or read from the authors' benchmark folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..flexiact_core.cogvideox.family import COGVIDEOX_1_0
from . import inputs
from .flexiact import FILES
from .host import encodings, folders, media, memory, progress
from .sockets import ActionClips, BaseModel, ClipsSocket

if TYPE_CHECKING:
    from torch import Tensor

    from ..flexiact_core.clip_lists import ListedClip

BENCHMARK = folders.ModelFolder(
    FILES.name,
    "hf download shiyi0408/FlexiAct --repo-type dataset --local-dir {folder}/benchmark",
    "the authors' data",
)
# Below models/flexiact: the release's benchmark folder, for actions of one's own.
OWN_ACTIONS = Path("own_actions") / "benchmark"
SAVED_NAME = "Name of the action. If another of that name and kind is there, it stays, and a number is added."
BASE_TOOLTIP = "The base to train on; its VAE and text encoder are used."


def cutting_inputs() -> list:
    """What clips are cut from, and how; the names of cut_reference()'s arguments."""
    return [
        inputs.model(BASE_TOOLTIP),
        *_stretch_inputs(),
        inputs.crops(),
        *_scale_inputs(),
        io.Boolean.Input(
            "flip",
            default=False,
            tooltip="Also mirror half of the crops left to right. Leave off if the direction matters.",
        ),
        inputs.seed("Fixes where the window and the crops lie."),
    ]


def _stretch_inputs() -> list:
    return [
        io.MultiType.Input(
            "reference",
            types=[io.Video, io.Image],
            tooltip=(
                "The video that shows the action, or its frames as IMAGE with their speed under 'fps'. At "
                "least 9 frames must be left at 8 per second."
            ),
        ),
        inputs.caption("What the reference shows, in a sentence. Left out now and then in training; may be empty."),
        io.Float.Input(
            "fps",
            default=float(COGVIDEOX_1_0.fps),
            min=0.1,
            max=240.0,
            step=0.1,
            tooltip="Frames per second of IMAGE frames. A VIDEO brings its own, and this has no effect.",
        ),
        io.Float.Input(
            "start",
            default=0.0,
            min=0.0,
            max=3600.0,
            step=0.1,
            tooltip="Seconds to skip at the beginning. 0: from the first frame.",
        ),
        io.Float.Input(
            "duration",
            default=0.0,
            min=0.0,
            max=3600.0,
            step=0.1,
            tooltip=(
                "Seconds to use from there. 0: to the end. Of more than the base learns from, about 6 seconds, "
                "a stretch is taken at a place that the seed chooses."
            ),
        ),
    ]


def _scale_inputs() -> list:
    return [
        io.Float.Input(
            "smallest_scale",
            default=0.8,
            min=0.2,
            max=1.0,
            step=0.05,
            advanced=True,
            tooltip=("The furthest a crop steps back, as a factor of size. 1: never; below, borders are mirrored."),
        ),
        io.Float.Input(
            "largest_scale",
            default=1.2,
            min=1.0,
            max=3.0,
            step=0.05,
            advanced=True,
            tooltip=(
                "The nearest a crop moves in, as a factor of size. 1: never. High: the action may leave the frame."
            ),
        ),
    ]


class PrepareActionClips(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PrepareActionClips",
            display_name="Prepare Action Clips",
            category="FlexiAct/training",
            description=(
                "Cuts training clips from a reference video: trimmed, brought to 8 frames per second, cropped at "
                "random, and encoded once. Look at the preview before training."
            ),
            search_aliases=["training clips", "random crops", "reference video", "flexiact dataset"],
            inputs=cutting_inputs(),
            outputs=[
                ClipsSocket.Output(display_name="clips", tooltip="The encoded clips, for Train Action."),
                io.Image.Output(display_name="preview", tooltip="A row for each crop, with a few of its frames."),
            ],
        )

    @classmethod
    def execute(cls, model: BaseModel, reference, caption, **cutting) -> io.NodeOutput:
        from ..flexiact_core.plots import tile_videos

        videos = cut_reference(model, reference, **cutting)
        return io.NodeOutput(encode_videos(model, videos, [caption]), tile_videos(videos))


class SaveActionClips(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveActionClips",
            display_name="Save Action Clips",
            category="FlexiAct/training",
            description=(
                "Cuts clips as Prepare Action Clips does and writes them as videos with a crop.csv, as the authors lay "
                "out theirs. Load Released Action lists them, and the authors' code reads them."
            ),
            search_aliases=["crop.csv", "write crops", "flexiact dataset", "save training clips"],
            inputs=[
                *cutting_inputs(),
                io.String.Input("name", default="my_action", tooltip=SAVED_NAME),
                io.String.Input("kind", default="own", tooltip="The folder of like actions that it is put in."),
            ],
            outputs=[
                io.String.Output(display_name="action", tooltip="kind/action, as Load Released Action lists it."),
                io.String.Output(display_name="clip_list", tooltip="Where crop.csv lies, for Train RefAdapter."),
                io.Image.Output(display_name="preview", tooltip="A row for each clip, with a few of its frames."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: BaseModel, reference, caption, name, kind, **cutting) -> io.NodeOutput:
        from ..flexiact_core.flexiact.released import write_released_action
        from ..flexiact_core.plots import tile_videos

        videos, root = cut_reference(model, reference, **cutting), FILES.roots()[0] / OWN_ACTIONS
        folder = write_released_action(root, kind, name, videos, model.base.family.fps, caption)
        progress.say(f"Saved as {folder.parent.name}/{folder.name} in {folders.shown(root)}.")
        return io.NodeOutput(f"{folder.parent.name}/{folder.name}", str(folder / "crop.csv"), tile_videos(videos))


class LoadReleasedAction(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadReleasedAction",
            display_name="Load Released Action",
            category="FlexiAct/training",
            description=(
                "Reads one action of the authors' benchmark folder: its reference clips, encoded for training, and its "
                "target pictures with their captions."
            ),
            search_aliases=["flexiact benchmark", "crop.csv", "val_image.csv", "released data"],
            inputs=[
                inputs.model(BASE_TOOLTIP),
                inputs.file_list(
                    "action",
                    find_released_actions(),
                    "kind/action, from captions/<kind>/<action>/crop.csv anywhere under models/flexiact. To fetch the "
                    "authors' data: " + BENCHMARK.command(),
                ),
                inputs.seed(
                    "Fixes which stretch of each clip is used, where a clip is longer than the base needs.",
                    new_each_run=False,
                ),
            ],
            outputs=[
                ClipsSocket.Output(display_name="clips", tooltip="The encoded clips, for Train Action."),
                io.Image.Output(display_name="preview", tooltip="A row for each clip, with a few of its frames."),
                io.Image.Output(
                    display_name="targets", is_output_list=True, tooltip="The target pictures, one after the other."
                ),
                io.String.Output(
                    display_name="captions", is_output_list=True, tooltip="A prompt for each target picture."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, action):
        return folders.check_listed(action, find_released_actions(), BENCHMARK.missing(action))

    @classmethod
    def fingerprint_inputs(cls, action=None, **_):
        from ..flexiact_core.errors import FileError
        from ..flexiact_core.flexiact.released import read_released_action

        folder = find_released_actions().get(action)
        try:
            released = read_released_action(folder) if folder else None
        except FileError:
            return folders.files_state(folder)
        videos = [clip.path for clip in released.clips] if released else []
        return folders.files_state(folder, *videos, *(path for path, _ in (released.targets if released else ())))

    @classmethod
    def execute(cls, model: BaseModel, action, seed) -> io.NodeOutput:
        from ..flexiact_core.flexiact.released import read_released_action
        from ..flexiact_core.plots import tile_videos

        folder = folders.path_of(action, find_released_actions(), BENCHMARK.missing(action))
        released = read_released_action(folder)
        clips, videos = released_clips(model, released.clips, seed)
        targets = [media.read_image(path) for path, _ in released.targets]
        return io.NodeOutput(clips, tile_videos(videos), targets, [caption for _, caption in released.targets])


def find_released_actions() -> dict[str, Path]:
    """The captions folders of all actions in the authors' benchmark layout under models/flexiact, by 'kind/action'."""
    from ..flexiact_core.flexiact.released import find_released_actions

    found: dict[str, Path] = {}
    for root in FILES.roots():
        found = find_released_actions(root) | found
    return dict(sorted(found.items()))


def as_clips(model: BaseModel, reference, caption: str, crops: int, seed: int) -> ActionClips:
    """Training clips of a reference: those of Prepare Action Clips as they are, a VIDEO or IMAGE cut and encoded."""
    if isinstance(reference, ActionClips):
        return reference
    videos = cut_reference(model, reference, model.base.family.fps, crops=crops, seed=seed)
    return encode_videos(model, videos, [caption])


def cut_reference(
    model: BaseModel,
    reference,
    fps: float,
    start: float = 0.0,
    duration: float = 0.0,
    *,
    crops: int,
    seed: int,
    smallest_scale: float = 0.8,
    largest_scale: float = 1.2,
    flip: bool = False,
) -> list[Tensor]:
    """Videos (T, H, W, 3) in 0..1 in the form that the base learns from, cut from a VIDEO, or from an IMAGE at `fps`.

    Raises FileError, ShapeError and SettingError as from_reference() and cut_crops() do.
    """
    from ..flexiact_core.clips import cut_crops
    from ..flexiact_core.cogvideox.model import clip_format

    form = clip_format(model.base)
    frames, speed = media.from_reference(reference, fps, form.fps, start, duration, size=form.size_px)
    scales = (smallest_scale, largest_scale)
    return cut_crops(frames, speed, form, crops, encodings.generator(seed), scale_range=scales, flip=flip)


def released_clips(model: BaseModel, clips: Sequence[ListedClip], seed: int):
    """Training clips (ActionClips) of the authors' clips, and the videos that they encode.

    They are crops already: each is used as it is. Raises FileError if one cannot be read.
    """
    from ..flexiact_core.clips import cut_crops
    from ..flexiact_core.cogvideox.model import clip_format

    form, generator = clip_format(model.base), encodings.generator(seed)
    videos = []
    for clip in clips:
        frames = media.read_clip(clip.path, form.fps, clip.start, clip.duration, size=form.size_px)
        videos += cut_crops(frames, form.fps, form, 1, generator)
    return encode_videos(model, videos, [clip.caption for clip in clips]), videos


def encode_videos(model: BaseModel, videos: Sequence[Tensor], captions: Sequence[str]) -> ActionClips:
    """Videos (T, H, W, 3) in 0..1 encoded for training, with one caption for all or one for each."""
    import torch

    from ..flexiact_core.cogvideox.encodings import encode_clips
    from ..flexiact_core.cogvideox.memory import encode_bytes

    prompt_embeds = torch.cat([encodings.encode_prompt(model, caption) for caption in captions])
    empty_embeds = encodings.encode_prompt(model, "")
    bar = progress.Progress(len(videos))
    with memory.on_device(model.vae, encode_bytes(model.base, *videos[0].shape[:3])) as device:
        encoded = encode_clips(
            model.base.vae, videos, prompt_embeds, empty_embeds, device, lambda done: bar.step(done + 1),
            progress.LongCall("Encoding a clip", bar=False),
        )  # fmt: skip
    digest = encodings.tensor_digest(encoded.video.mean, prompt_embeds)
    return ActionClips(encoded, captions[0], videos[0], digest)
