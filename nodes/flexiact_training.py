"""FlexiAct's training nodes: clips of a reference video, and the action learned from them."""

from __future__ import annotations

import time

from comfy_api.latest import io

from . import host
from .flexiact import not_computed
from .sockets import ActionClips, BaseModel, ClipsSocket, CogVideoXI2VSocket, FAESocket

SAMPLE_STEPS = 25


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
            inputs=[
                CogVideoXI2VSocket.Input("model", tooltip="The base to train on; its VAE and text encoder are used."),
                io.MultiType.Input(
                    "reference",
                    types=[io.Video, io.Image],
                    tooltip="The video that shows the action, or its frames as IMAGE with their speed under 'fps'.",
                ),
                io.String.Input(
                    "caption",
                    multiline=True,
                    tooltip="What the reference shows, in a sentence. Left out now and then in training; may be empty.",
                ),
                io.Float.Input(
                    "fps",
                    default=8.0,
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
                    tooltip="Seconds to use from there. 0: to the end. The base learns from about 6 seconds at most.",
                ),
                io.Int.Input(
                    "crops",
                    default=12,
                    min=1,
                    max=64,
                    tooltip=(
                        "Versions of the clip cut at random places. 12: released value. 1: the clip alone, and the "
                        "action sticks to its layout."
                    ),
                ),
                io.Float.Input(
                    "smallest_scale",
                    default=0.8,
                    min=0.2,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip=(
                        "The furthest a crop steps back, as a factor of size. 1: never; below, borders are mirrored."
                    ),
                ),
                io.Float.Input(
                    "largest_scale",
                    default=1.2,
                    min=1.0,
                    max=3.0,
                    step=0.05,
                    advanced=True,
                    tooltip=(
                        "The nearest a crop moves in, as a factor of size. 1: never. High: the action may leave the "
                        "frame."
                    ),
                ),
                io.Boolean.Input(
                    "flip",
                    default=False,
                    tooltip="Also mirror half of the crops left to right. Leave off if the direction matters.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Fixes where the window and the crops lie.",
                ),
            ],
            outputs=[
                ClipsSocket.Output(display_name="clips", tooltip="The encoded clips, for Train FAE."),
                io.Image.Output(display_name="preview", tooltip="A row for each crop, with a few of its frames."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: BaseModel,
        reference,
        caption,
        fps,
        start,
        duration,
        crops,
        smallest_scale,
        largest_scale,
        flip,
        seed,
    ) -> io.NodeOutput:
        from ..flexiact_core.plots import tile_videos

        clips, videos = _prepare_clips(
            model, reference, caption, crops, seed,
            image_fps=fps, start=start, duration=duration, scale_range=(smallest_scale, largest_scale), flip=flip,
        )  # fmt: skip
        return io.NodeOutput(clips, tile_videos(videos))


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
                io.String.Input("name", default="my_action", tooltip="File name of the action, without ending."),
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
                        "Versions of the clip cut at random places. 12: released value. 1: the clip alone, and the "
                        "action sticks to its layout. Prepared clips bring their own."
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
                *_training_inputs(),
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
        return _changes_while_unfinished(name, steps, resume)

    @classmethod
    def check_lazy_status(cls, steps, learning_rate, batch_size, **inputs):
        from ..flexiact_core.flexiact.training import check_training_settings

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
        from ..flexiact_core.flexiact.training import TOKENS, fit_fae
        from ..flexiact_core.plots import draw_loss

        base = model.base
        clips = reference
        if not isinstance(clips, ActionClips):
            clips, _ = _prepare_clips(model, reference, caption, crops, seed)
        settings = {
            "base": base_signature(base.transformer),
            "clips": clips.digest,
            "caption": clips.caption,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "seed": seed,
        }
        training = _Training(name, settings, steps, checkpoint_every, resume)
        sampler = _Sampler(model, clips, sample_image, sample_cfg, seed)

        def to_fae(state):
            return FAE(state.parameters[TOKENS], name=name, metadata=training.metadata(state))

        def on_step(index, loss, take_state):
            if sample_every and (index + 1) % sample_every == 0 and index + 1 < steps:
                training.report.show_sample(sampler.draw(to_fae(take_state())))
                # Sampling may have moved the transformer out to make room for the VAE.
                host.load_to_train(model.transformer, needed)
            training.on_step(index, loss, take_state)

        shape = clips.encoded.video.mean.shape
        needed, checkpointing = host.training_memory(model, shape, batch_size, gradient_checkpointing)
        with host.on_device_to_train(model.transformer, needed) as device:
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
                stop_on=(host.interrupt(),),
            )
        training.finish(state)
        fae = to_fae(state)
        path = host.result_path("fae", name, training.digest)
        save_fae(fae, path)
        if released_format:
            save_released_fae(fae, path.with_suffix(".pt"))
        _save_preview(path.with_suffix(".mp4"), clips.first_video)
        if sample_every and state.steps_done == steps:
            sampler.draw(fae)
        host.say(f"Saved as {path.name} in {path.parent}.")
        return io.NodeOutput(((fae, 1.0),), draw_loss(state.losses), sampler.frames)


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
                CogVideoXI2VSocket.Input("model", tooltip="The base to train on; its VAE and text encoder are used."),
                io.Combo.Input(
                    "action",
                    options=host.list_released_actions() or [host.NONE_FOUND],
                    tooltip=(
                        "kind/action, from captions/<kind>/<action>/crop.csv anywhere under models/flexiact. To fetch "
                        "the authors' data: " + host.BENCHMARK_DOWNLOAD.format(folder="models/flexiact")
                    ),
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Fixes which stretch of each clip is used, where a clip is longer than the base needs.",
                ),
            ],
            outputs=[
                ClipsSocket.Output(display_name="clips", tooltip="The encoded clips, for Train FAE."),
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
        return True if action is None or host.released_action_path(action) else host.missing_benchmark(action)

    @classmethod
    def execute(cls, model: BaseModel, action, seed) -> io.NodeOutput:
        from ..flexiact_core.flexiact.clips import TRAINING_FPS, cut_crops
        from ..flexiact_core.flexiact.dataset import read_released_action
        from ..flexiact_core.plots import tile_videos
        from ..flexiact_core.video import read_video

        released = read_released_action(host.released_action_path(action))
        width, height, max_frames = host.native_size(model)
        generator = host.generator(seed)
        # The authors' clips are crops already: each is used as it is.
        videos = [
            cut_crops(
                read_video(clip.path, TRAINING_FPS, clip.start, clip.duration),
                TRAINING_FPS, width, height, max_frames, 1, generator,
            )[0]
            for clip in released.clips
        ]  # fmt: skip
        clips = _encode_clips(model, videos, [clip.caption for clip in released.clips])
        targets = [host.read_image(path) for path, _ in released.targets]
        return io.NodeOutput(clips, tile_videos(videos), targets, [caption for _, caption in released.targets])


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
                io.String.Input("name", default="my_refadapter", tooltip="File name of the adapter, without ending."),
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
                *_training_inputs(),
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
        return _changes_while_unfinished(name, steps, resume)

    @classmethod
    def check_lazy_status(cls, clip_list, steps, learning_rate, batch_size, **inputs):
        from ..flexiact_core.flexiact.dataset import read_clip_list
        from ..flexiact_core.flexiact.training import check_training_settings

        check_training_settings(steps, learning_rate, batch_size)
        read_clip_list(host.input_path(clip_list))
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
        from ..flexiact_core.cogvideox.model import base_signature
        from ..flexiact_core.cogvideox.sampling import make_scheduler
        from ..flexiact_core.flexiact.dataset import encode_listed_clips, encoded_file, read_clip_list
        from ..flexiact_core.flexiact.refadapter import save_refadapter
        from ..flexiact_core.flexiact.training import fit_refadapter, refadapter_of
        from ..flexiact_core.plots import draw_loss

        base = model.base
        listed = read_clip_list(host.input_path(clip_list))
        width, height, max_frames = host.native_size(model)
        captions = {caption: host.encode_prompt(model, caption) for caption in {clip.caption for clip in listed}}
        folder = host.encodings_folder(base_signature(base.transformer))
        progress = host.Progress(len(listed))
        with host.on_device(model.vae, host.encode_bytes(model, max_frames, height, width)) as device:
            encoded = encode_listed_clips(
                base.vae,
                listed,
                folder,
                captions.__getitem__,
                width_px=width,
                height_px=height,
                max_frames=max_frames,
                device=device,
                on_clip=lambda index: progress.step(index + 1),
            )
        settings = {
            "base": base_signature(base.transformer),
            "clips": sorted(encoded_file(clip, folder).name for clip in listed),
            "learning_rate": learning_rate,
            "rank": rank,
            "batch_size": batch_size,
            "seed": seed,
        }
        training = _Training(name, settings, steps, checkpoint_every, resume)
        shape = encoded.draw(host.generator(0)).video.mean.shape
        needed, checkpointing = host.training_memory(model, shape, batch_size, gradient_checkpointing, rank)
        with host.on_device_to_train(model.transformer, needed) as device:
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
                stop_on=(host.interrupt(),),
            )
        training.finish(state)
        adapter = refadapter_of(state, name)
        path = host.result_path("refadapter", name, training.digest)
        save_refadapter(adapter, path, training.metadata(state))
        host.say(f"Saved as {path.name} in {path.parent}.")
        return io.NodeOutput(model.with_adapter(adapter, 1.0), draw_loss(state.losses))


def _training_inputs() -> list:
    return [
        io.Int.Input(
            "checkpoint_every",
            default=250,
            min=1,
            max=100000,
            advanced=True,
            tooltip="Steps between two checkpoints in models/flexiact/training. Low: less is lost in a crash.",
        ),
        io.Boolean.Input(
            "resume",
            default=True,
            tooltip="Go on from the last checkpoint of the same name, clips and settings. Off: start anew.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="Fixes all randomness of the training. A new seed is a new training.",
        ),
        io.Combo.Input(
            "gradient_checkpointing",
            options=["auto", "on", "off"],
            default="auto",
            advanced=True,
            tooltip=("on: far less memory, but the forward pass is computed twice. auto: on if memory would not do."),
        ),
    ]


class _Training:
    """What the training nodes do around the loop: checkpoints, progress, and Cancel that keeps what was learned."""

    def __init__(self, name: str, settings: dict, steps: int, checkpoint_every: int, resume: bool):
        from ..flexiact_core.flexiact.training import load_state

        self.name, self.settings, self.steps, self.checkpoint_every = name, settings, steps, checkpoint_every
        self.digest = host.digest(settings)
        self.checkpoint = host.training_path(name, self.digest)
        self.resumed = load_state(self.checkpoint)[0] if resume and self.checkpoint.is_file() else None
        self.report = host.TrainingProgress(steps, done=0 if self.resumed is None else self.resumed.steps_done)

    def on_step(self, index: int, loss: float, take_state) -> None:
        """Saves when it is due, and reports."""
        done = index + 1
        if done % self.checkpoint_every == 0:
            self.save(take_state())
        self.report.step(done, loss)

    def save(self, state) -> None:
        """Writes the checkpoint."""
        from ..flexiact_core.flexiact.training import save_state

        save_state(state, self.checkpoint, {"name": self.name, "steps_done": str(state.steps_done)})

    def finish(self, state) -> None:
        """Writes the last checkpoint, and says so if Cancel ended the training."""
        self.save(state)
        if state.steps_done < self.steps:
            host.say(f"Training stopped at step {state.steps_done} of {self.steps}; what was learned is kept.")

    def metadata(self, state) -> dict:
        """What the learned file says of itself."""
        return self.settings | {
            "action": self.name,
            "steps": state.steps_done,
            "training": self.digest,
            "pack_version": host.pack_version(),
        }


class _Sampler:
    """Draws sample videos in a training: always the same picture, caption and seed."""

    def __init__(self, model: BaseModel, clips: ActionClips, image, cfg: float, seed: int):
        from ..flexiact_core.video import check_single_image, fit_frames

        self.model, self.clips, self.cfg, self.seed = model, clips, cfg, seed
        self.frames = clips.first_video
        self.posterior = clips.first_image
        if image is not None:
            width, height, _ = host.native_size(model)
            picture = fit_frames(check_single_image(host.ordinary(image), "sample_image"), width, height)
            self.posterior = host.encode_image(model, picture)

    def draw(self, fae):
        """Frames (T, H, W, 3) of a new sample video, also kept as `frames`."""
        from ..flexiact_core.cogvideox.model import decode_latents
        from ..flexiact_core.flexiact.schedule import MotionBias
        from ..flexiact_core.flexiact.transfer import transfer_action
        from ..flexiact_core.video import to_frames

        model, clips = self.model, self.clips.encoded
        shape = clips.video.mean.shape
        with host.on_device(model.transformer, host.transformer_bytes(model, shape[1], *shape[-2:], 2)) as device:
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
        with host.on_device(model.vae, host.decode_bytes(model, num_frames, height, width)) as device:
            self.frames = to_frames(decode_latents(model.base.vae, latents, device)).cpu()
        return self.frames


def _prepare_clips(
    model: BaseModel, reference, caption, crops, seed, *,
    image_fps=host.FPS, start=0.0, duration=0.0, scale_range=(0.8, 1.2), flip=False,
):  # fmt: skip
    from ..flexiact_core.flexiact.clips import cut_crops

    frames, fps = host.from_reference(reference, image_fps, start, duration)
    width, height, max_frames = host.native_size(model)
    videos = cut_crops(
        frames, fps, width, height, max_frames, crops, host.generator(seed),
        scale_range=scale_range, flip=flip,
    )  # fmt: skip
    return _encode_clips(model, videos, [caption]), videos


def _encode_clips(model: BaseModel, videos, captions) -> ActionClips:
    import torch

    from ..flexiact_core.flexiact.clips import encode_clips

    num_frames, height, width = videos[0].shape[:3]
    prompt_embeds = torch.cat([host.encode_prompt(model, caption) for caption in captions])
    empty_embeds = host.encode_prompt(model, "")
    progress = host.Progress(len(videos))
    with host.on_device(model.vae, host.encode_bytes(model, num_frames, height, width)) as device:
        encoded = encode_clips(
            model.base.vae, videos, prompt_embeds, empty_embeds, device, on_clip=lambda done: progress.step(done + 1)
        )
    digest = host.tensor_digest(encoded.video.mean, prompt_embeds)
    return ActionClips(encoded, captions[0], videos[0], digest)


def _save_preview(path, frames) -> None:
    from ..flexiact_core.errors import CheckpointError
    from ..flexiact_core.video import write_preview

    try:
        write_preview(path, frames, host.FPS)
    except CheckpointError as error:
        # What was learned goes on through the graph.
        host.say(str(error))


def _changes_while_unfinished(name, steps, resume):
    # A training that was cancelled is to go on when it is queued again, though nothing in the graph has changed.
    unfinished = resume and name and steps and host.unfinished_training(name, steps)
    return time.time() if unfinished else ""
