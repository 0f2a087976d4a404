"""AMG's training nodes: the adapter learned from clips with their avatars, and saving it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import amg_parts, inputs
from .amg_files import FILES
from .host import encodings, folders, media, progress
from .host import memory as memories
from .sockets import AMGModel, AMGSocket
from .training import Plan, Training, changes_while_unfinished, not_computed, training_inputs

if TYPE_CHECKING:
    from ..flexiact_core.training import TrainingState

CATEGORY = "FlexiAct/training"


class TrainAMG(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TrainAMG",
            display_name="Train AMG",
            category=CATEGORY,
            description=(
                "Learns to follow avatars, from videos with renders of their avatars: LoRA on all attention, and the "
                "input layer that reads them. Saved in models/amg/adapters. Cancel keeps what was learned; the same "
                "settings and Queue go on from there."
            ),
            search_aliases=["amg training", "train amg lora", "avatar adapter"],
            inputs=[
                AMGSocket.Input(
                    "model",
                    lazy=True,
                    tooltip="A ModelScope base to start from, or AMG to go on from; it is left as it is.",
                ),
                io.String.Input(
                    "clips",
                    tooltip=(
                        "Folder in ComfyUI's input folder or in a model folder: pairs (video/NAME.mp4, "
                        "avatar/NAME.mp4 and the caption in video/NAME.txt), or the authors' layout "
                        "(images_feature, hg_images_feature, captions_y)."
                    ),
                ),
                inputs.result_name("my_amg", "adapter"),
                inputs.steps(40000, 1000000, "Training steps. The release took 40000, each on 8 clips."),
                inputs.learning_rate(0.000001, 0.0000001, "the authors' value"),
                inputs.batch_size("Clips per step. 8: the authors' value. Memory and time grow with it."),
                io.Int.Input(
                    "rank",
                    default=4,
                    min=1,
                    max=128,
                    tooltip="Rank of a new LoRA. 4: released value. A model that has one keeps its own.",
                ),
                io.Int.Input("num_frames", default=16, min=1, max=240, tooltip="Frames of a clip. 16: released value."),
                io.Int.Input(
                    "size",
                    default=256,
                    min=16,
                    max=1024,
                    step=16,
                    tooltip="Width and height in pixels to which pairs are fitted. Encoded clips have their own.",
                ),
                io.Float.Input(
                    "caption_dropout",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Share of clips whose caption is left out. 0: released value. 1: captions have no effect.",
                ),
                io.Int.Input(
                    "skip",
                    default=0,
                    min=0,
                    max=1000000,
                    advanced=True,
                    tooltip="First clips of the authors' layout to leave out. They left out 5500, to look at results.",
                ),
                *training_inputs(FILES),
            ],
            outputs=[
                AMGSocket.Output(display_name="model", tooltip="The model with what was learned, for AMG Sampler."),
                io.Image.Output(display_name="loss_curve", tooltip="The loss by step."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, clips=None, **widgets):
        return f"{changes_while_unfinished(FILES, **widgets)}{folders.input_state(clips)}"

    @classmethod
    def check_lazy_status(cls, clips, steps, learning_rate, batch_size, model=None, **_):
        from ..flexiact_core.amg.dataset import check_clips
        from ..flexiact_core.amg.fit import RECIPE
        from ..flexiact_core.training import check_training_settings

        check_training_settings(steps, learning_rate, batch_size, RECIPE)
        check_clips(folders.input_path(clips))
        return not_computed({"model": model})

    @classmethod
    def execute(
        cls, model: AMGModel, clips, rank, num_frames, size, caption_dropout, skip, **settings
    ) -> io.NodeOutput:
        from ..flexiact_core.plots import draw_loss

        data = read_clips(model, folders.input_path(clips), num_frames, size, skip)
        learned, state = train(model, data, rank, caption_dropout, Plan(**settings))
        return io.NodeOutput(learned, draw_loss(state.losses))


class SaveAMGAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveAMGAdapter",
            display_name="Save AMG Adapter",
            category=CATEGORY,
            description=(
                "Saves what AMG learned on top of its ModelScope base, LoRA and input layer, in models/amg/adapters: "
                "3.4 MB of the released 5.3 GB. Load AMG puts it on the base again."
            ),
            search_aliases=["amg lora", "extract adapter", "save lora"],
            inputs=[
                AMGSocket.Input("model", tooltip="The model from Load AMG or Train AMG."),
                inputs.result_name("my_amg", "adapter"),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file lies.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: AMGModel, name) -> io.NodeOutput:
        from ..flexiact_core.amg.loading import adapter_digest, save_adapter

        adapter = model.amg.adapter
        digest = adapter_digest(adapter)
        path = folders.result_path(FILES, "adapters", name, digest)
        save_adapter(adapter, path, {"training": digest})
        progress.say(f"Saved as {path.name} in {folders.shown(path.parent)}.")
        return io.NodeOutput(str(path))


def read_clips(model: AMGModel, folder: Path, num_frames: int, size: int, skip: int):
    """Clips to draw from: the authors' layout as it is; pairs are encoded once, with progress.

    Raises FileError if a file is missing or cannot be read, SettingError if the size does not fit the model.
    """
    from ..flexiact_core.amg.dataset import ReleasedClips, encode_pairs, find_pairs, is_released
    from ..flexiact_core.amg.model import size_step_px
    from ..flexiact_core.amg.parts import NEEDED
    from ..flexiact_core.amg.pictures import check_avatar_size
    from ..flexiact_core.errors import FileError

    if is_released(folder):
        return ReleasedClips(folder, num_frames, skip=skip)
    check_avatar_size(size, size, size_step_px(model.amg.unet))
    pairs = find_pairs(folder)
    if model.pictures is None:
        raise FileError(f"VAE: this model has none. Choose 'components' in Load AMG, or connect a VAE to it. {NEEDED}")
    bar = progress.Progress(len(pairs))
    texts = {text: amg_parts.encode_prompt(model, text, "cut") for text in {pair.caption for pair in pairs}}
    return encode_pairs(
        pairs, folders.training_folder(FILES) / "clips", model.pictures.parameters, texts.__getitem__,
        model.pictures.scale, width_px=size, height_px=size, num_frames=num_frames,
        made_with=model.pictures.digest() + model.words.digest(), on_pair=lambda index: bar.step(index + 1),
        read=media.read_clip,
    )  # fmt: skip


def train(model: AMGModel, data, rank: int, caption_dropout: float, plan: Plan) -> tuple[AMGModel, TrainingState]:
    """The model with what it learned, also saved, and the state that the training came to."""
    from ..flexiact_core.amg.fit import adapter_of, fit_amg
    from ..flexiact_core.amg.loading import adapter_digest, check_text_width, save_adapter, with_adapter
    from ..flexiact_core.amg.memory import training_bytes
    from ..flexiact_core.amg.model import count_learned

    amg = model.amg
    example = data.draw(encodings.generator(0))
    check_text_width("captions", example.text.shape[-1], amg.unet)
    identity = {
        "base": encodings.tensor_digest(amg.unet.conv_out.weight), "start": adapter_digest(amg.adapter),
        "clips": data.identity, "rank": rank, "caption_dropout": caption_dropout,
    }  # fmt: skip
    training = Training(FILES, plan, identity)
    num_learned = count_learned(amg.unet, rank)
    num_bytes = training_bytes(
        amg.unet, *example.video.shape[2:], plan.batch_size, num_learned, amg.dtype.itemsize
    )  # fmt: skip
    needed, checkpointing = memories.choose_checkpointing(model.unet, plan.gradient_checkpointing, num_bytes)
    fit = partial(
        fit_amg, amg, data.draw, rank=rank, caption_dropout=caption_dropout,
        null_text=_null_text(model, data) if caption_dropout else None,
    )  # fmt: skip
    state = training.run(model.unet, needed, fit, gradient_checkpointing=checkpointing)
    adapter = adapter_of(state, plan.name)
    training.save("adapters", state, lambda path, metadata: save_adapter(adapter, path, metadata))
    return replace(model, amg=with_adapter(amg, adapter)), state


def _null_text(model: AMGModel, data):
    own = getattr(data, "zero_text", None)
    return amg_parts.zero_text(model) if own is None else own
