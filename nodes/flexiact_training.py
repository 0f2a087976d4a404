"""FlexiAct's trainings: an action, and an adapter."""

from __future__ import annotations

from comfy_api.latest import io

from .flexiact import FILES
from .flexiact_clips import prepare_clips
from .host import encodings, folders, memory, progress
from .sockets import ActionClips, BaseModel, ClipsSocket, CogVideoXI2VSocket, FAESocket
from .training import Training, changes_while_unfinished, not_computed, save_preview, training_inputs

SAMPLE_STEPS = 25


class TrainFAE(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TrainFAE",
            display_name="Train FAE",
            category="FlexiAct/training",
            description=(
                "Learns the action of one reference video and saves it in models/flexiact/fae, where Load FAE "
                "Embedding finds it. Cancel keeps what was learned; the same settings and Queue go on from there."
            ),
            search_aliases=["flexiact train", "learn action", "motion inversion", "train action"],
            inputs=[
                CogVideoXI2VSocket.Input(
                    "model", lazy=True, tooltip="The base to learn on. Adapters applied to it take no part in training."
                ),
                io.MultiType.Input(
                    "reference",
                    types=[io.Video, io.Image, ClipsSocket],
                    lazy=True,
                    tooltip=(
                        "The video that shows the action, at least 9 frames at 8 per second: a VIDEO, IMAGE frames at "
                        "8 per second, or clips from Prepare Action Clips."
                    ),
                ),
                io.String.Input(
                    "caption",
                    multiline=True,
                    tooltip="What the reference shows, in a sentence. May be empty. Prepared clips bring their own.",
                ),
                io.String.Input(
                    "name",
                    default="my_action",
                    tooltip=(
                        "File name of the action, without ending. If another training has that name, a number is added."
                    ),
                ),
                io.Int.Input(
                    "steps",
                    default=3000,
                    min=1,
                    max=100000,
                    tooltip="Training steps. More fit the reference closer; the authors look at results from 3500 on.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=0.003,
                    min=0.000001,
                    max=1.0,
                    step=0.000001,
                    tooltip="Size of each step. 0.003: released value. High: faster, then unstable. Low: slow.",
                ),
                io.Int.Input(
                    "crops",
                    default=12,
                    min=1,
                    max=64,
                    tooltip=(
                        "Versions of the clip cut at random places; the first is uncut. 12: released value. 1: the "
                        "clip alone, and the action sticks to its layout. Prepared clips bring their own."
                    ),
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
                    advanced=True,
                    tooltip=(
                        "Crops per step. 1: released value, least memory. More: steadier steps, more memory and time."
                    ),
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
                io.Float.Input(
                    "sample_cfg",
                    default=6.0,
                    min=1.0,
                    max=30.0,
                    step=0.1,
                    advanced=True,
                    tooltip="Guidance of the sample videos, as in FlexiAct Sampler. 1: none.",
                ),
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
    def fingerprint_inputs(cls, name, steps, resume, **_):
        return changes_while_unfinished(FILES, name, steps, resume)

    @classmethod
    def check_lazy_status(cls, steps, learning_rate, batch_size, **inputs):
        from ..flexiact_core.training import check_training_settings

        check_training_settings(steps, learning_rate, batch_size)
        return not_computed(inputs)

    @classmethod
    def execute(
        cls,
        model: BaseModel,
        reference,
        caption,
        name,
        steps,
        learning_rate,
        crops,
        batch_size,
        checkpoint_every,
        sample_every,
        sample_cfg,
        resume,
        released_format,
        seed,
        gradient_checkpointing,
        sample_image=None,
    ) -> io.NodeOutput:
        from ..flexiact_core.cogvideox.model import base_signature
        from ..flexiact_core.cogvideox.sampling import make_scheduler
        from ..flexiact_core.flexiact.fae import FAE, save_fae, save_released_fae
        from ..flexiact_core.flexiact.fit import TOKENS, fit_fae
        from ..flexiact_core.plots import draw_loss

        base = model.base
        clips = reference
        if not isinstance(clips, ActionClips):
            clips, _ = prepare_clips(model, reference, caption, crops, seed)
        settings = {
            "base": base_signature(base.transformer),
            "clips": clips.digest,
            "caption": clips.caption,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "seed": seed,
        }
        training = Training(FILES, name, settings, steps, checkpoint_every, resume)
        sampler = _Sampler(model, clips, sample_image, sample_cfg, seed)

        def to_fae(state):
            return FAE(state.parameters[TOKENS], name=name, metadata=training.metadata(state))

        def on_step(index, loss, take_state):
            if sample_every and (index + 1) % sample_every == 0 and index + 1 < steps:
                training.report.show_sample(sampler.draw(to_fae(take_state())))
                # Sampling may have moved the transformer out to make room for the VAE.
                memory.load_to_train(model.transformer, needed)
            training.on_step(index, loss, take_state)

        shape = clips.encoded.video.mean.shape
        needed, checkpointing = memory.training_memory(model, shape, batch_size, gradient_checkpointing)
        with memory.on_device_to_train(model.transformer, needed) as device:
            state = fit_fae(
                base.transformer,
                make_scheduler(base.scheduler_config, "DPM"),
                clips.encoded,
                steps=steps,
                learning_rate=learning_rate,
                seed=seed,
                device=device,
                batch_size=batch_size,
                gradient_checkpointing=checkpointing,
                resume=training.resumed,
                on_step=on_step,
                stop_on=(progress.interrupt(),),
            )
        training.finish(state)
        fae = to_fae(state)
        path = folders.result_path(FILES, "fae", name, training.digest)
        save_fae(fae, path)
        if released_format:
            save_released_fae(fae, path.with_suffix(".pt"))
        save_preview(path.with_suffix(".mp4"), clips.first_video)
        if sample_every and state.steps_done == steps:
            sampler.draw(fae)
        progress.say(f"Saved as {path.name} in {path.parent}.")
        return io.NodeOutput(((fae, 1.0),), draw_loss(state.losses), sampler.frames)


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
                CogVideoXI2VSocket.Input(
                    "model", lazy=True, tooltip="The base to train on. Adapters applied to it take no part."
                ),
                io.String.Input(
                    "clip_list",
                    tooltip=(
                        "CSV file of the videos, in ComfyUI's input folder or with its full path. Each line: path, "
                        "start frame, end frame, fps, ..., caption."
                    ),
                ),
                io.String.Input(
                    "name",
                    default="my_refadapter",
                    tooltip=(
                        "File name of the adapter, without ending. If another training has that name, a number is "
                        "added."
                    ),
                ),
                io.Int.Input(
                    "steps",
                    default=40000,
                    min=1,
                    max=1000000,
                    tooltip="Training steps. The authors took 40000, each on 8 clips of 42000 videos.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=0.00001,
                    min=0.0000001,
                    max=1.0,
                    step=0.0000001,
                    tooltip="Size of each step. 0.00001: the authors' value. High: faster, then unstable. Low: slow.",
                ),
                io.Int.Input(
                    "rank",
                    default=64,
                    min=1,
                    max=512,
                    tooltip="Rank of the adapter's matrices. 64: released value. Low: smaller file, can learn less.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Clips per step. 8: the authors' value. Memory and time grow with it.",
                ),
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
    def fingerprint_inputs(cls, name, steps, resume, **_):
        return changes_while_unfinished(FILES, name, steps, resume)

    @classmethod
    def check_lazy_status(cls, clip_list, steps, learning_rate, batch_size, **inputs):
        from ..flexiact_core.clip_lists import read_clip_list
        from ..flexiact_core.training import check_training_settings

        check_training_settings(steps, learning_rate, batch_size)
        read_clip_list(folders.input_path(clip_list))
        return not_computed(inputs)

    @classmethod
    def execute(
        cls,
        model: BaseModel,
        clip_list,
        name,
        steps,
        learning_rate,
        rank,
        batch_size,
        checkpoint_every,
        resume,
        seed,
        gradient_checkpointing,
    ) -> io.NodeOutput:
        from ..flexiact_core.clip_lists import read_clip_list
        from ..flexiact_core.cogvideox.encodings import encode_listed_clips, encoded_file
        from ..flexiact_core.cogvideox.model import base_signature, clip_format
        from ..flexiact_core.cogvideox.sampling import make_scheduler
        from ..flexiact_core.flexiact.fit import fit_refadapter, refadapter_of
        from ..flexiact_core.flexiact.refadapter import save_refadapter
        from ..flexiact_core.plots import draw_loss

        base = model.base
        listed = read_clip_list(folders.input_path(clip_list))
        form = clip_format(base)
        captions = {caption: encodings.encode_prompt(model, caption) for caption in {clip.caption for clip in listed}}
        folder = folders.training_folder(FILES) / "clips" / base_signature(base.transformer)
        bar = progress.Progress(len(listed))
        with memory.on_device(
            model.vae, memory.encode_bytes(model, form.max_frames, form.height_px, form.width_px)
        ) as device:
            encoded = encode_listed_clips(
                base.vae,
                listed,
                folder,
                captions.__getitem__,
                form=form,
                device=device,
                on_clip=lambda index: bar.step(index + 1),
            )
        settings = {
            "base": base_signature(base.transformer),
            "clips": sorted(encoded_file(clip, folder).name for clip in listed),
            "learning_rate": learning_rate,
            "rank": rank,
            "batch_size": batch_size,
            "seed": seed,
        }
        training = Training(FILES, name, settings, steps, checkpoint_every, resume)
        shape = encoded.draw(encodings.generator(0)).video.mean.shape
        needed, checkpointing = memory.training_memory(model, shape, batch_size, gradient_checkpointing, rank)
        with memory.on_device_to_train(model.transformer, needed) as device:
            state = fit_refadapter(
                base.transformer,
                make_scheduler(base.scheduler_config, "DPM"),
                encoded.draw,
                rank=rank,
                steps=steps,
                learning_rate=learning_rate,
                seed=seed,
                device=device,
                batch_size=batch_size,
                gradient_checkpointing=checkpointing,
                resume=training.resumed,
                on_step=training.on_step,
                stop_on=(progress.interrupt(),),
            )
        training.finish(state)
        adapter = refadapter_of(state, name)
        path = folders.result_path(FILES, "refadapter", name, training.digest)
        save_refadapter(adapter, path, training.metadata(state))
        progress.say(f"Saved as {path.name} in {path.parent}.")
        return io.NodeOutput(model.with_adapter(adapter, 1.0), draw_loss(state.losses))


class _Sampler:
    """Draws sample videos in a training: always the same picture, caption and seed."""

    def __init__(self, model: BaseModel, clips: ActionClips, image, cfg: float, seed: int):
        from ..flexiact_core.cogvideox.model import fit_picture

        self.model, self.clips, self.cfg, self.seed = model, clips, cfg, seed
        self.frames = clips.first_video
        self.posterior = clips.first_image
        if image is not None:
            width, height, _ = encodings.native_size(model)
            picture = fit_picture(model.base, memory.ordinary(image), "sample_image", width, height)
            self.posterior = encodings.encode_image(model, picture)

    def draw(self, fae):
        """Frames (T, H, W, 3) of a new sample video, also kept as `frames`."""
        from ..flexiact_core.cogvideox.model import decode_latents
        from ..flexiact_core.flexiact.bias import MotionBias
        from ..flexiact_core.flexiact.transfer import transfer_action
        from ..flexiact_core.video import to_frames

        model, clips = self.model, self.clips.encoded
        shape = clips.video.mean.shape
        with memory.on_device(model.transformer, memory.transformer_bytes(model, shape[1], *shape[-2:], 2)) as device:
            latents = transfer_action(
                model.base,
                self.posterior,
                clips.prompt_embeds[:1],
                clips.empty_embeds,
                faes=[(fae, 1.0)],
                adapters=model.adapters,
                bias=MotionBias(),
                num_frames=len(self.clips.first_video),
                steps=SAMPLE_STEPS,
                cfg=self.cfg,
                scheduler="DPM",
                seed=self.seed,
                device=device,
            )
        num_frames, height, width = self.clips.first_video.shape[:3]
        with memory.on_device(model.vae, memory.decode_bytes(model, num_frames, height, width)) as device:
            self.frames = to_frames(decode_latents(model.base.vae, latents, device)).cpu()
        return self.frames
