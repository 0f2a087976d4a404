"""Nodes for ComfyUI's own MODEL, CLIP and VAE: CogVideoX set right in it, actions and LoRAs on it."""

from __future__ import annotations

from comfy_api.latest import io

from . import cogvideox, inputs
from .cogvideox import BASES, FROM_COMPONENTS, SAME_FOLDER
from .host import folders
from .native_loading import WEIGHTS
from .sockets import BaseModel, CogVideoXI2VSocket, FAESocket, WeightedFAEs

LORAS = folders.ModelFolder("loras")
ANY_MODEL = io.MatchType.Template("model", [io.Model, CogVideoXI2VSocket])


class LoadCogVideoXNative(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadCogVideoXNative",
            display_name="Load CogVideoX (native)",
            category="FlexiAct/native",
            description=(
                "Loads a CogVideoX 1.0 image-to-video base as ComfyUI's own MODEL, CLIP and VAE, so that its samplers, "
                "LoRAs, caches and context windows work with it. Reads the same files as Load CogVideoX I2V."
            ),
            search_aliases=["cogvideox model clip vae", "native cogvideo", "cogvideox unet loader", "image to video"],
            inputs=[
                inputs.file_list(
                    "model",
                    cogvideox.find_bases(),
                    "A diffusers folder, or a single-file transformer with diffusers' or ComfyUI's keys, in "
                    "models/CogVideo. To fetch the released base: " + BASES.command(),
                ),
                io.Combo.Input(
                    "components",
                    options=[SAME_FOLDER, *cogvideox.find_base_folders()],
                    default=SAME_FOLDER,
                    advanced=True,
                    tooltip=(
                        "The diffusers folder that gives text encoder, tokenizer and VAE. auto: the model's own "
                        "folder; for a single file, the only folder there is."
                    ),
                ),
                io.Combo.Input(
                    "weights",
                    options=list(WEIGHTS),
                    default="as stored",
                    advanced=True,
                    tooltip=(
                        "How weights are kept in memory. as stored: 16 bits each for the released base. fp8: 8 bits, "
                        "half the memory; rounding changes the video a little."
                    ),
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=[FROM_COMPONENTS, *cogvideox.find_text_encoders()],
                    default=FROM_COMPONENTS,
                    advanced=True,
                    tooltip="A T5-v1.1-XXL encoder in models/text_encoders, in place of the components' own.",
                ),
                io.Combo.Input(
                    "vae",
                    options=[FROM_COMPONENTS, *cogvideox.find_vaes()],
                    default=FROM_COMPONENTS,
                    advanced=True,
                    tooltip="A CogVideoX VAE in models/vae, in place of the components' own.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="For Apply Action and any sampler. Every ComfyUI sampler but VOIDSampler fits it.",
                ),
                io.Clip.Output(display_name="clip", tooltip="For CLIPTextEncode. Brackets are no weights here."),
                io.Vae.Output(display_name="vae", tooltip="For CogVideoX Image to Video and VAE Decode."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model, text_encoder, vae):
        return cogvideox.LoadCogVideoXI2V.validate_inputs(model, text_encoder, vae)

    @classmethod
    def fingerprint_inputs(cls, **chosen):
        return cogvideox.LoadCogVideoXI2V.fingerprint_inputs(**chosen)

    @classmethod
    def execute(cls, model, components, weights, text_encoder, vae) -> io.NodeOutput:
        from .native_loading import load_native

        source, files = cogvideox.base_path(model), cogvideox.part_files(text_encoder, vae)
        return io.NodeOutput(*load_native(source, cogvideox.components_of(source, components, files), files, weights))


class CogVideoXFixes(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CogVideoXFixes",
            display_name="CogVideoX 1.0 Fixes",
            category="FlexiAct/native",
            description=(
                "Sets positions and sampling right in a CogVideoX 1.0 image-to-video MODEL that came from Load "
                "Diffusion Model or a GGUF loader: without it ComfyUI 0.30 makes noise of it. Not needed after Load "
                "CogVideoX (native)."
            ),
            search_aliases=["cogvideox repair", "cogvideox gguf", "cogvideox noise fix", "rotary positions"],
            inputs=[
                io.Model.Input("model", tooltip="CogVideoX 1.0 image-to-video with ComfyUI's own keys."),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="CogVideoX's VAE, for previews in the right colours. Left open: no previews.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model set right; the one given is unchanged.")],
        )

    @classmethod
    def execute(cls, model, vae=None) -> io.NodeOutput:
        from .host import native

        fixed = native.with_fixes(model)
        if vae is not None:
            native.show_colours(fixed, vae)
        return io.NodeOutput(fixed)


class CogVideoXImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CogVideoXImageToVideo",
            display_name="CogVideoX Image to Video",
            category="FlexiAct/native",
            description=(
                "Puts the picture that a video starts from into the prompts, and gives empty latents of the video's "
                "size. Prompts over 226 tokens are cut, as the model reads no more."
            ),
            search_aliases=["cogvideox i2v conditioning", "image to video latent", "start image"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What the video shows, from CLIPTextEncode."),
                io.Conditioning.Input("negative", tooltip="What to keep away from; an empty prompt is as released."),
                io.Vae.Input("vae", tooltip="CogVideoX's VAE."),
                io.Image.Input("image", tooltip="One picture, scaled to cover the size and cut at the centre."),
                inputs.side("width"),
                inputs.side("height"),
                inputs.num_frames(),
                inputs.seed(
                    "Draws the picture's latents from what the VAE says of it, as the model was trained: seeds differ "
                    "by a trace.",
                    new_each_run=False,
                ),
                io.Boolean.Input(
                    "draw_latents",
                    default=True,
                    advanced=True,
                    tooltip="On: latents are drawn by the seed, as Action Transfer draws them. Off: their mean.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The prompt with the picture."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative prompt with the picture."),
                io.Latent.Output(display_name="latent", tooltip="Empty latents of the video's size, for a sampler."),
            ],
        )

    @classmethod
    def execute(
        cls, positive, negative, vae, image, width, height, num_frames, seed, draw_latents
    ) -> io.NodeOutput:  # fmt: skip
        from .native_loading import condition_on_picture

        size = (width, height, num_frames)
        return io.NodeOutput(
            *condition_on_picture(positive, negative, vae, image, size, seed if draw_latents else None)
        )


class ApplyFlexiAct(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ApplyFlexiAct",
            display_name="Apply Action",
            category="FlexiAct/native",
            description=(
                "Makes a MODEL perform an action while any sampler runs it. Gives a new model; the one that comes in "
                "is unchanged. Goes after LoRAs and before or after caches and compile nodes."
            ),
            search_aliases=["flexiact model", "action transfer native", "motion tokens model", "apply fae"],
            inputs=[
                io.Model.Input("model", tooltip="From Load CogVideoX (native) or CogVideoX 1.0 Fixes."),
                FAESocket.Input("fae", tooltip="The action, from Load Action."),
                *inputs.bias(),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model that performs the action.")],
        )

    @classmethod
    def check_lazy_status(cls, bias_strength, hold_until, off_below, weighting, **lazy):
        from ..flexiact_core.flexiact.bias import choose_bias

        choose_bias({}, bias_strength, hold_until, off_below, weighting)
        return []

    @classmethod
    def execute(
        cls, model, fae: WeightedFAEs, bias_strength, hold_until, off_below, weighting
    ) -> io.NodeOutput:  # fmt: skip
        from ..flexiact_core.flexiact.bias import choose_bias
        from .host import native
        from .native_action import with_action

        bias = choose_bias(native.own_config(model), bias_strength, hold_until, off_below, weighting)
        return io.NodeOutput(with_action(model, fae, bias))


class LoadCogVideoXLora(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadCogVideoXLora",
            display_name="Load CogVideoX LoRA",
            category="FlexiAct/native",
            description=(
                "Applies a CogVideoX LoRA in any layout that is published: diffusers, kohya, FlexiAct's own or "
                "ComfyUI's, to a MODEL or a base. ComfyUI's own loader takes none of the first three, and says nothing."
            ),
            search_aliases=["cogvideox lora", "lora loader cogvideo", "diffusers lora", "peft lora"],
            inputs=[
                io.MatchType.Input("model", ANY_MODEL, tooltip="A MODEL, or the base of Load CogVideoX I2V."),
                inputs.file_list(
                    "lora_file", folders.find_files(LORAS, b"lora"), "A LoRA (.safetensors) in models/loras."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Factor on the LoRA's change of the weights. 0: not at all. 1: as it was trained.",
                ),
            ],
            outputs=[io.MatchType.Output(ANY_MODEL, display_name="model", tooltip="The model with the LoRA applied.")],
        )

    @classmethod
    def validate_inputs(cls, lora_file):
        return folders.check_weights(LORAS, lora_file)

    @classmethod
    def fingerprint_inputs(cls, lora_file=None, **_):
        return folders.files_state(folders.find_files(LORAS).get(lora_file))

    @classmethod
    def execute(cls, model, lora_file, strength) -> io.NodeOutput:
        from ..flexiact_core.cogvideox.loras import load_lora
        from .host import memory

        with memory.normal_tensors():
            lora = load_lora(folders.weights_path(LORAS, lora_file))
        return io.NodeOutput(with_lora(model, lora, strength))


def with_lora(model, lora, strength: float):
    """A new base or MODEL with a LoRA or RefAdapter on it. Raises FileError if it is of another model."""
    from ..flexiact_core.cogvideox.loras import check_lora
    from ..flexiact_core.cogvideox.native_keys import to_native
    from ..flexiact_core.flexiact.refadapter import check_adapter, to_lora
    from .host import memory, native

    if isinstance(model, BaseModel):
        check_adapter(lora, model.base.transformer)
        return model.with_adapter(lora, strength)
    native.check_kind(model)
    check_lora(to_lora(lora), native.shapes_of(model))
    changed = model.clone()
    memory.add_lora(changed, to_lora(lora).matrices, strength, lambda name: f"diffusion_model.{to_native(name)}")
    return changed
