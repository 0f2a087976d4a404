"""FlexiAct's nodes: the adapter, the action, and sampling."""

from __future__ import annotations

from comfy_api.latest import io

from .host import encodings, folders, media, memory, progress
from .sockets import AccelerationSocket, BaseModel, CogVideoXI2VSocket, FAESocket, RunAcceleration, WeightedFAEs
from .training import not_computed

FILES = folders.ModelFolder("flexiact", "hf download shiyi0408/FlexiAct --local-dir {folder}")
REFADAPTER_WORDS = b".lora_"
FAE_WORDS = b"motion_inversion_tokens"


class ApplyRefAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ApplyRefAdapter",
            display_name="Apply RefAdapter",
            category="FlexiAct",
            description=(
                "Lets any picture, not only a true first frame, lead the video. Gives a new model; the one that comes "
                "in is unchanged. Several adapters add up, each with its own weight."
            ),
            search_aliases=["refadapter", "refnet lora", "flexiact adapter", "identity lora"],
            inputs=[
                CogVideoXI2VSocket.Input("model", tooltip="The base from Load CogVideoX I2V."),
                io.Combo.Input(
                    "adapter_file",
                    options=folders.listed(folders.find_files(FILES, REFADAPTER_WORDS)),
                    tooltip=(
                        "A RefAdapter (.safetensors or released .pt) in models/flexiact. To fetch the released one: "
                        + FILES.command()
                    ),
                ),
                io.Float.Input(
                    "weight",
                    default=0.7,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip=(
                        "How strongly the adapter acts, as a factor on its change of the weights. 0: not at all. "
                        "0.7: the released value. 1: as it was trained."
                    ),
                ),
            ],
            outputs=[CogVideoXI2VSocket.Output(display_name="model", tooltip="The base with the adapter applied.")],
        )

    @classmethod
    def validate_inputs(cls, adapter_file):
        return folders.check_weights(FILES, adapter_file)

    @classmethod
    def execute(cls, model: BaseModel, adapter_file, weight) -> io.NodeOutput:
        from ..flexiact_core.flexiact.refadapter import check_refadapter, load_refadapter

        with memory.normal_tensors():
            adapter = load_refadapter(folders.weights_path(FILES, adapter_file))
        check_refadapter(adapter, model.base.transformer)
        return io.NodeOutput(model.with_adapter(adapter, weight))


class LoadFAEEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadFAEEmbedding",
            display_name="Load FAE Embedding",
            category="FlexiAct",
            description=(
                "Loads one learned action (FAE). Connect another Load FAE Embedding to 'fae' to combine two actions; "
                "each keeps its own strength."
            ),
            search_aliases=["fae", "action", "motion embedding", "motion tokens", "flexiact action"],
            inputs=[
                io.Combo.Input(
                    "fae_file",
                    options=folders.listed(folders.find_files(FILES, FAE_WORDS)),
                    tooltip=(
                        "An action (.safetensors or released .pt) in models/flexiact. Train FAE makes new ones. To "
                        "fetch the released ones: " + FILES.command()
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip=(
                        "Weight of this action's tokens in attention, as a factor. 0: exactly as without the action. "
                        "1: as trained. 2: each token counts twice."
                    ),
                ),
                FAESocket.Input("fae", optional=True, tooltip="Actions to combine this one with."),
            ],
            outputs=[FAESocket.Output(display_name="fae", tooltip="The action, with those combined before it.")],
        )

    @classmethod
    def validate_inputs(cls, fae_file):
        return folders.check_weights(FILES, fae_file)

    @classmethod
    def execute(cls, fae_file, strength, fae: WeightedFAEs = ()) -> io.NodeOutput:
        from ..flexiact_core.flexiact.fae import load_fae

        with memory.normal_tensors():
            return io.NodeOutput((*fae, (load_fae(folders.weights_path(FILES, fae_file)), strength)))


class FlexiActSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FlexiActSampler",
            display_name="FlexiAct Sampler",
            category="FlexiAct",
            description=(
                "Makes a video in which the picture performs the action. Without an action it is plain CogVideoX "
                "image-to-video."
            ),
            search_aliases=["flexiact", "action transfer", "motion transfer", "cogvideox sampler", "animate image"],
            inputs=[
                CogVideoXI2VSocket.Input(
                    "model", lazy=True, tooltip="The base, with RefAdapter applied for action transfer."
                ),
                io.Image.Input(
                    "image",
                    lazy=True,
                    tooltip=(
                        "One picture that is to perform the action. It is scaled to cover the size and cut at the "
                        "centre; transparent parts become white."
                    ),
                ),
                FAESocket.Input(
                    "fae",
                    optional=True,
                    lazy=True,
                    tooltip="The action. Left open: plain image-to-video, led by the prompt alone.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip=(
                        "What the video shows: the subject and the action, in a sentence or two. May be empty. What is "
                        "over the model's length is cut, and the node says so."
                    ),
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    tooltip="What to keep away from. Empty is the released setting. Has no effect at cfg 1.",
                ),
                io.Int.Input(
                    "width",
                    default=720,
                    min=16,
                    max=4096,
                    step=16,
                    tooltip="Width in pixels, a multiple of 16. CogVideoX-5B-I2V makes 720x480 only.",
                ),
                io.Int.Input(
                    "height",
                    default=480,
                    min=16,
                    max=4096,
                    step=16,
                    tooltip="Height in pixels, a multiple of 16. CogVideoX-5B-I2V makes 720x480 only.",
                ),
                io.Int.Input(
                    "num_frames",
                    default=49,
                    min=1,
                    max=1025,
                    step=8,
                    tooltip=(
                        "Frames at 8 per second, 8k+1: 9 is about one second, 49 six. More take longer and more "
                        "memory. CogVideoX-5B-I2V makes 49 at most."
                    ),
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=1000,
                    tooltip="Denoising steps. Fewer are faster and rougher; 50 is the released value.",
                ),
                io.Float.Input(
                    "cfg",
                    default=6.0,
                    min=1.0,
                    max=30.0,
                    step=0.1,
                    tooltip=(
                        "Guidance towards the prompt. 1: none, half the work. 6: released value. High: harsh colours."
                    ),
                ),
                io.Float.Input(
                    "bias_strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip=(
                        "Added weight on the action while motion forms, in attention logits. 0: none, as the released "
                        "scripts run. 1: the paper's value."
                    ),
                ),
                io.Int.Input(
                    "hold_until",
                    default=800,
                    min=1,
                    max=1000,
                    advanced=True,
                    tooltip=(
                        "Timestep (999 is pure noise, 0 the clean video) down to which the full bias is held. Lower: "
                        "the action speaks longer. Must lie above off_below."
                    ),
                ),
                io.Int.Input(
                    "off_below",
                    default=700,
                    min=0,
                    max=999,
                    advanced=True,
                    tooltip="Timestep at which the bias has faded to 0, along a cosine. Lower: the action fades later.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Fixes all randomness: the same graph and seed give the same frames.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=["DPM", "DDIM"],
                    default="DPM",
                    tooltip=(
                        "How steps are taken. DPM: the released one, adds fresh noise at each step. DDIM: adds none."
                    ),
                ),
                io.Combo.Input(
                    "weighting",
                    options=["paper", "release"],
                    default="paper",
                    advanced=True,
                    tooltip=(
                        "How the bias fades. paper: the whole curve is scaled by bias_strength. release: the fading "
                        "part starts at 1 whatever the strength, as the authors' code does."
                    ),
                ),
                AccelerationSocket.Input(
                    "acceleration",
                    optional=True,
                    tooltip="Ways to save time, from FlexiAct Acceleration. Left open: every step in full.",
                ),
                io.Boolean.Input(
                    "draw_attention",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "On: draws how much the video attends to the action in every layer and step, for the output "
                        "'attention'. The frames stay the same. Off: nothing is drawn, and it takes no time."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The frames, as many as asked for."),
                io.Video.Output(display_name="video", tooltip="The same frames as a video at 8 frames per second."),
                io.Image.Output(
                    display_name="attention",
                    tooltip=(
                        "Share of attention (0 to 1) that the action's tokens get from the video, by layer and step. "
                        "Needs draw_attention; what is connected here waits without it."
                    ),
                ),
            ],
        )

    @classmethod
    def check_lazy_status(cls, width, height, num_frames, bias_strength, hold_until, off_below, weighting, **inputs):
        from ..flexiact_core.cogvideox.family import COGVIDEOX_1_0
        from ..flexiact_core.flexiact.bias import MotionBias

        # Here, and not in validate_inputs: one sentence instead of one per input, and linked numbers are known too.
        COGVIDEOX_1_0.check_size(width, height)
        COGVIDEOX_1_0.check_num_frames(num_frames)
        MotionBias(bias_strength, hold_until, off_below, weighting)
        return not_computed(inputs)

    @classmethod
    def execute(
        cls,
        model: BaseModel,
        image,
        prompt,
        negative_prompt,
        width,
        height,
        num_frames,
        steps,
        cfg,
        bias_strength,
        hold_until,
        off_below,
        seed,
        scheduler,
        weighting,
        fae: WeightedFAEs = (),
        acceleration: RunAcceleration | None = None,
        draw_attention: bool = False,
    ) -> io.NodeOutput:
        import torch

        from ..flexiact_core.cogvideox import model as cogvideox
        from ..flexiact_core.cogvideox.acceleration import EXACT
        from ..flexiact_core.cogvideox.family import check_video_size
        from ..flexiact_core.flexiact.bias import MotionBias
        from ..flexiact_core.flexiact.fae import check_fae
        from ..flexiact_core.flexiact.transfer import transfer_action
        from ..flexiact_core.plots import draw_heat_map
        from ..flexiact_core.video import to_frames

        base = model.base
        bias = MotionBias(bias_strength, hold_until, off_below, weighting)
        picture = cogvideox.fit_picture(base, memory.ordinary(image), "image", width, height)
        check_video_size(base.transformer.config, width, height, num_frames)
        for action, _ in fae:
            check_fae(action, base.transformer)

        prompt_embeds = encodings.encode_prompt(model, prompt)
        negative_embeds = encodings.encode_prompt(model, negative_prompt)
        posterior = encodings.encode_image(model, picture)
        preview = cogvideox.fit_preview(picture, posterior.mean * base.vae.config.scaling_factor)
        bar = progress.Progress(steps)
        acceleration = acceleration or RunAcceleration(EXACT)
        transformer, adapters = sampling_transformer(model, acceleration.merge_adapters)

        shares: list[dict[int, float]] = [{}]  # by step and layer

        def on_share(layer, share):
            shares[-1][layer] = float(share)

        def on_step(index, clean_latents):
            shares.append({})
            middle = clean_latents.shape[1] // 2
            bar.step(index + 1, cogvideox.preview_frame(clean_latents, preview, middle))

        num_latent_frames = base.family.count_latent_frames(num_frames)
        needed = memory.transformer_bytes(
            model, num_latent_frames, *posterior.mean.shape[-2:], batch=2, acceleration=acceleration.run
        )
        with memory.on_device(transformer, needed) as device:
            latents = transfer_action(
                base,
                posterior,
                prompt_embeds,
                negative_embeds,
                faes=fae,
                adapters=adapters,
                bias=bias,
                num_frames=num_frames,
                steps=steps,
                cfg=cfg,
                scheduler=scheduler,
                seed=seed,
                device=device,
                acceleration=acceleration.run,
                on_step=on_step,
                on_share=on_share if draw_attention else None,
            )
        with memory.on_device(model.vae, memory.decode_bytes(model, num_frames, height, width)) as device:
            frames = to_frames(cogvideox.decode_latents(base.vae, latents, device)).cpu()
        picture = progress.nothing()
        if draw_attention:
            # A layer that a step cache skips has no share.
            layers = range(base.transformer.config.num_layers)
            values = torch.tensor([[step.get(layer, torch.nan) for step in shares[:steps]] for layer in layers])
            title = "share of attention on the action's tokens"
            picture = draw_heat_map(values, title=title, x_label="step", y_label="layer")
        return io.NodeOutput(frames, media.to_video(frames), picture)


def sampling_transformer(model: BaseModel, merge_adapters: bool):
    """The patcher to load for sampling, and the adapters that its weights do not hold.

    Merged adapters are ComfyUI's own weight patches on a clone: the weights come back bit for bit as soon as another
    patcher of the base is loaded. Weights stored in float8 are too coarse to take them in; that is said.
    """
    if not model.adapters or not merge_adapters:
        return model.transformer, model.adapters
    stored = model.base.transformer.transformer_blocks[0].attn1.to_q.weight.dtype
    if stored.itemsize == 1:
        progress.say("The base's weights are stored in float8, too coarse to take in RefAdapter: it runs beside them.")
        return model.transformer, model.adapters
    return model.merged.get("transformer", lambda: _merge_adapters(model)), ()


def _merge_adapters(model: BaseModel):
    from comfy.weight_adapter import LoRAAdapter

    from ..flexiact_core.flexiact.refadapter import ALPHA_PER_RANK, matrices_by_weight

    patcher = model.transformer.clone()
    for adapter, weight in model.adapters:
        patches = {
            f"{memory.HELD_AS}.{name}": LoRAAdapter(set(), (up, down, None, None, None, None))
            for name, (down, up) in matrices_by_weight(adapter).items()
        }
        taken = patcher.add_patches(patches, weight * ALPHA_PER_RANK)
        assert len(taken) == len(patches)
    return patcher
