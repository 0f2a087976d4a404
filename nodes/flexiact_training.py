"""FlexiAct's trainings: an action, and an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import inputs
from .flexiact import FILES
from .flexiact_clips import as_clips
from .flexiact_samples import SampleVideos, read_sample_list
from .host import encodings, folders, media, memory, progress
from .sockets import ActionClips, BaseModel, ClipsSocket, CogVideoXI2VSocket, FAESocket
from .training import Plan, Training, changes_while_unfinished, not_computed, save_preview, training_inputs

if TYPE_CHECKING:
    from ..flexiact_core.clip_lists import ListedClip
    from ..flexiact_core.cogvideox.encodings import EncodedClips
    from ..flexiact_core.flexiact.fae import FAE
    from ..flexiact_core.flexiact.refadapter import RefAdapter
    from ..flexiact_core.training import TrainingState


class TrainFAE(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TrainFAE",
            display_name="Train Action (FAE)",
            category="FlexiAct/training",
            description=(
                "Learns the action of one reference video and saves it in models/flexiact/fae, where Load "
                "Action finds it. Cancel keeps what was learned; the same settings and Queue go on from there."
            ),
            search_aliases=["flexiact train", "learn action", "motion inversion", "train action"],
            inputs=[
                inputs.model("The base to learn on. Adapters applied to it take no part in training.", lazy=True),
                io.MultiType.Input(
                    "reference",
                    types=[io.Video, io.Image, ClipsSocket],
                    lazy=True,
                    tooltip=(
                        "The video that shows the action, at least 9 frames at 8 per second: a VIDEO, IMAGE frames at "
                        "8 per second, or clips from Prepare Action Clips."
                    ),
                ),
                inputs.caption(
                    "What the reference shows, in a sentence. May be empty. Prepared clips bring their own."
                ),
                inputs.result_name("my_action", "action"),
                inputs.steps(
                    3500,
                    100000,
                    "Training steps. More fit the reference closer; the authors look at results from 3500 on.",
                ),
                inputs.learning_rate(0.003, 0.000001, "released value"),
                inputs.crops("Prepared clips bring their own."),
                inputs.batch_size(
                    "Crops per step. 1: released value, least memory. More: steadier steps, more memory and time.",
                    advanced=True,
                ),
                io.Int.Input(
                    "sample_every",
                    default=0,
                    min=0,
                    max=100000,
                    advanced=True,
                    tooltip=(
                        "Steps between two sample videos, always with the same seed. 0: none. Each takes a short "
                        "sampling."
                    ),
                ),
                inputs.cfg("sample_cfg", "Guidance of the sample videos, as in Action Transfer.", advanced=True),
                io.Boolean.Input(
                    "released_format",
                    default=False,
                    advanced=True,
                    tooltip="Also save NAME.pt, as the authors' code reads it. Off: .safetensors alone.",
                ),
                *training_inputs(FILES),
                io.Image.Input(
                    "sample_image",
                    optional=True,
                    lazy=True,
                    tooltip=(
                        "The picture that performs the action in sample videos. Left open: the reference's first frame."
                    ),
                ),
                io.String.Input(
                    "sample_list",
                    optional=True,
                    default="",
                    advanced=True,
                    tooltip=(
                        "CSV file of more pictures for sample videos, in ComfyUI's input folder or a model folder, as "
                        "the authors' val_image.csv: path and caption per line. Their videos are kept in the output "
                        "folder. Empty: none."
                    ),
                ),
            ],
            outputs=[
                FAESocket.Output(display_name="fae", tooltip="The learned action, at strength 1."),
                io.Image.Output(display_name="loss_curve", tooltip="The loss by step."),
                io.Image.Output(
                    display_name="samples", tooltip="Frames of the last sample video, or the first clip if none."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, sample_list=None, **widgets):
        return f"{changes_while_unfinished(FILES, **widgets)}{folders.input_state(sample_list)}"

    @classmethod
    def check_lazy_status(cls, steps, learning_rate, batch_size, sample_list="", **lazy):
        from ..flexiact_core.training import check_training_settings

        check_training_settings(steps, learning_rate, batch_size)
        read_sample_list(sample_list)
        return not_computed(lazy)

    @classmethod
    def execute(
        cls, model: BaseModel, reference, caption, crops, sample_every, sample_cfg, released_format, sample_image=None,
        sample_list="", **settings,
    ) -> io.NodeOutput:  # fmt: skip
        from ..flexiact_core.plots import draw_loss

        plan, targets = Plan(**settings), read_sample_list(sample_list)
        clips = as_clips(model, reference, caption, crops, plan.seed)
        samples = SampleVideos(model, clips, sample_image, sample_every, sample_cfg, plan.seed, targets)
        fae, state = train_fae(model, clips, plan, samples, released_format)
        return io.NodeOutput(((fae, 1.0),), draw_loss(state.losses), samples.frames)


class TrainRefAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TrainRefAdapter",
            display_name="Train RefAdapter",
            category="FlexiAct/training",
            description=(
                "Trains a RefAdapter on many videos, so that any picture can lead a video of this base. The released "
                "base has a released adapter: this is for other bases. Saved in models/flexiact/refadapter."
            ),
            search_aliases=["train lora", "refnet", "flexiact adapter training"],
            inputs=[
                inputs.model("The base to train on. Adapters applied to it take no part.", lazy=True),
                io.String.Input(
                    "clip_list",
                    tooltip=(
                        "CSV file of the videos, in ComfyUI's input folder or a model folder. Each line: path, start "
                        "frame, end frame, fps, ..., caption; or MiraData's own table. The videos lie in that folder, "
                        "too."
                    ),
                ),
                inputs.result_name("my_refadapter", "adapter"),
                inputs.steps(
                    40000, 1000000, "Training steps. The authors took 40000, each on 8 clips of 42000 videos."
                ),
                inputs.learning_rate(0.00001, 0.0000001, "the authors' value"),
                io.Int.Input(
                    "rank",
                    default=64,
                    min=1,
                    max=512,
                    tooltip="Rank of the adapter's matrices. 64: released value. Low: smaller file, can learn less.",
                ),
                inputs.batch_size("Clips per step. 8: the authors' value. Memory and time grow with it."),
                *training_inputs(FILES),
            ],
            outputs=[
                CogVideoXI2VSocket.Output(
                    display_name="model", tooltip="The base with the new adapter applied at weight 1."
                ),
                io.Image.Output(display_name="loss_curve", tooltip="The loss by step."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, clip_list=None, **widgets):
        from ..flexiact_core.clip_lists import read_clip_list
        from ..flexiact_core.errors import FileError

        unfinished, listed = changes_while_unfinished(FILES, **widgets), folders.input_state(clip_list)
        try:
            videos = {clip.path for clip in read_clip_list(*folders.input_file(clip_list))} if clip_list else ()
        except FileError:  # said when the node runs
            videos = ()
        return f"{unfinished}{listed}{folders.files_state(*sorted(videos))}"

    @classmethod
    def check_lazy_status(cls, clip_list, steps, learning_rate, batch_size, **lazy):
        from ..flexiact_core.clip_lists import read_clip_list
        from ..flexiact_core.training import check_training_settings

        check_training_settings(steps, learning_rate, batch_size)
        read_clip_list(*folders.input_file(clip_list))
        return not_computed(lazy)

    @classmethod
    def execute(cls, model: BaseModel, clip_list, rank, **settings) -> io.NodeOutput:
        from ..flexiact_core.clip_lists import read_clip_list
        from ..flexiact_core.plots import draw_loss

        clips = read_clip_list(*folders.input_file(clip_list))
        adapter, state = train_refadapter(model, clips, rank, Plan(**settings))
        return io.NodeOutput(model.with_adapter(adapter, 1.0), draw_loss(state.losses))


def train_fae(
    model: BaseModel, clips: ActionClips, plan: Plan, samples: SampleVideos, released_format: bool
) -> tuple[FAE, TrainingState]:
    """The action of the clips, learned and saved, and the state that the training came to."""
    from ..flexiact_core.cogvideox.model import base_signature
    from ..flexiact_core.cogvideox.sampling import make_scheduler
    from ..flexiact_core.flexiact.fae import FAE, save_fae, save_released_fae
    from ..flexiact_core.flexiact.fit import TOKENS, fit_fae

    base = model.base
    identity = {"base": base_signature(base.transformer), "clips": clips.digest, "caption": clips.caption}
    num_learned = _layer_rows(model) * base.transformer.config.max_text_seq_length
    training = Training(FILES, plan, identity, "fae", num_learned)
    needed, checkpointing = _room(model, clips.encoded.video.mean.shape, plan, num_learned)
    fit = partial(fit_fae, base.transformer, make_scheduler(base.scheduler_config, "DPM"), clips.encoded)

    def to_fae(state):
        return FAE(state.parameters[TOKENS], name=plan.name, metadata=training.metadata(state))

    def draw_samples(state):
        return samples.draw(to_fae(state), state.steps_done, folders.samples_folder(plan.name, training.digest))

    state = training.run(model.transformer, needed, fit, draw_samples, samples.every, checkpointing)
    fae = to_fae(state)
    beside = {".mp4": lambda path: save_preview(path, clips.first_video, base.family.fps)}
    if released_format:
        beside[".pt"] = lambda path: save_released_fae(fae, path)
    training.save("fae", state, lambda path, _: save_fae(fae, path), beside)
    if samples.every and state.steps_done == plan.steps:
        draw_samples(state)
    return fae, state


def train_refadapter(
    model: BaseModel, clips: Sequence[ListedClip], rank: int, plan: Plan
) -> tuple[RefAdapter, TrainingState]:
    """A RefAdapter learned from the listed clips and saved, and the state that the training came to."""
    from ..flexiact_core.cogvideox.model import base_signature
    from ..flexiact_core.flexiact.fit import refadapter_fit, refadapter_of
    from ..flexiact_core.flexiact.refadapter import save_refadapter

    base = model.base
    signature = base_signature(base.transformer)
    folder = folders.training_folder(FILES) / "clips" / signature
    encoded = encode_list(model, clips, folder, plan.seed)
    identity = {"base": signature, "clips": sorted(file.name for file in encoded.files), "rank": rank}
    num_learned = _layer_rows(model) * 4 * 2 * rank
    training = Training(FILES, plan, identity, "refadapter", num_learned)
    shape = encoded.draw(encodings.generator(0)).video.mean.shape
    needed, checkpointing = _room(model, shape, plan, num_learned, adapters=True)
    fit = refadapter_fit(base, encoded, rank)
    state = training.run(model.transformer, needed, fit, gradient_checkpointing=checkpointing)
    adapter = refadapter_of(state, plan.name, training.metadata(state))
    training.save("refadapter", state, lambda path, metadata: save_refadapter(adapter, path, metadata))
    return adapter, state


def encode_list(model: BaseModel, clips: Sequence[ListedClip], folder: Path, seed: int) -> EncodedClips:
    """The listed clips, encoded into files in `folder` that are kept, so that a training that goes on does not do it
    again. Raises FileError and ShapeError as encode_listed_clips() does."""
    from ..flexiact_core.cogvideox.encodings import encode_listed_clips, encoded_file, way_of
    from ..flexiact_core.cogvideox.memory import encode_bytes
    from ..flexiact_core.cogvideox.model import clip_format
    from ..flexiact_core.digests import module_digest

    form = clip_format(model.base)
    made_with = module_digest(model.base.text_encoder)
    way = way_of(model.base.vae, form, seed=seed, made_with=made_with)
    asked = {clip.caption for clip in clips if not encoded_file(clip, folder, way).is_file()}
    captions = {caption: encodings.encode_prompt(model, caption) for caption in asked}
    bar = progress.Progress(len(clips))
    with memory.on_device(
        model.vae, encode_bytes(model.base, form.max_frames, form.height_px, form.width_px)
    ) as device:
        return encode_listed_clips(
            model.base.vae, clips, folder, captions.__getitem__, form=form, device=device, seed=seed,
            made_with=made_with, on_clip=lambda index: bar.step(index + 1),
            on_part=progress.LongCall("Encoding a clip", bar=False), read=media.read_clip,
        )  # fmt: skip


def _layer_rows(model: BaseModel) -> int:
    """How many numbers one row of every layer's width has."""
    config = model.base.transformer.config
    return config.num_layers * config.num_attention_heads * config.attention_head_dim


def _room(
    model: BaseModel, shape: Sequence[int], plan: Plan, num_learned: int, adapters: bool = False
) -> tuple[int, bool]:
    """What a training step takes beside the weights, and whether gradients are checkpointed."""
    from ..flexiact_core.cogvideox.memory import training_bytes

    num_bytes = training_bytes(model.base, shape, plan.batch_size, num_learned, adapters)
    return memory.choose_checkpointing(model.transformer, plan.gradient_checkpointing, num_bytes)
