"""AMG's nodes: the model, a video from avatars and words, and the release's demo folders."""

from __future__ import annotations

from comfy_api.latest import io

from . import amg_parts, inputs
from .amg_files import AUTO, FILES, components_of, find_adapters, find_components, find_models, find_tensors
from .amg_sampling import Settings, sample_frames
from .host import folders, media, memory
from .sockets import AMGAvatarSocket, AMGModel, AMGSocket
from .training import not_computed

NONE, COMPUTED = "none", "computed"
CATEGORY = "FlexiAct/AMG"


class LoadAMG(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from ..flexiact_core.amg.rehearsal import LABEL

        return io.Schema(
            node_id="LoadAMG",
            display_name="Load AMG",
            category=CATEGORY,
            description=(
                "Loads AMG, which makes a video from renders of 3D avatars and words. Put the authors' "
                "non_ema_0640000.pth and a diffusers folder of Stable Diffusion 2.1 in models/amg. Nothing is "
                "downloaded. The authors gave no licence: for research only."
            ),
            search_aliases=["amg", "avatar video", "3d avatar", "modelscope", "text to video"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[*find_models(), LABEL],
                    tooltip=(
                        "In models/amg: the authors' non_ema_0640000.pth, a .safetensors of it, or a ModelScope "
                        "text-to-video base (a diffusers folder with unet, or VGen's .pth), which needs an adapter. "
                        "small people (built in): a small trained one of 64x64 pixels, for Load Example Avatar. "
                        f"{LABEL}: a tiny one without training, to see a workflow run."
                    ),
                ),
                io.Combo.Input(
                    "adapter",
                    options=[NONE, *find_adapters()],
                    default=NONE,
                    tooltip=(
                        "What Train AMG learned, for the model that it was trained on. none: what the model's own file "
                        "has; enough for non_ema_0640000.pth."
                    ),
                ),
                io.Combo.Input(
                    "components",
                    options=[AUTO, *find_components()],
                    default=AUTO,
                    tooltip=(
                        "What gives text encoder and VAE of Stable Diffusion 2.1: a diffusers folder (text_encoder, "
                        "tokenizer, vae) or its single checkpoint, in models/amg. auto: the model's own folder, or the "
                        "only one there is. Not needed for what 'clip' and 'vae' give."
                    ),
                ),
                io.Combo.Input(
                    "zero_text",
                    options=[COMPUTED, *find_tensors()],
                    default=COMPUTED,
                    advanced=True,
                    tooltip=(
                        "The embedding of no words, which guidance leads away from. computed: by the text encoder. A "
                        "file: the authors' zero_y.pt, in models/amg."
                    ),
                ),
                inputs.dtype("fp32 needs twice the memory, and 5.7 GB for the released UNet."),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Stable Diffusion 2.1's text encoder, from Load Checkpoint. Left open: from 'components'.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Stable Diffusion's VAE, from Load Checkpoint. Left open: from 'components'.",
                ),
            ],
            outputs=[AMGSocket.Output(display_name="model", tooltip="The model, for AMG Sampler and Train AMG.")],
        )

    @classmethod
    def validate_inputs(cls, model, adapter, components, zero_text):
        from ..flexiact_core.amg.rehearsal import LABEL

        chosen = {
            model: {LABEL: None, **find_models()},
            adapter: {NONE: None, **find_adapters()},
            components: {AUTO: None, **find_components()},
            zero_text: {COMPUTED: None, **find_tensors()},
        }
        missing = [name for name, found in chosen.items() if name is not None and name not in found]
        return FILES.missing(missing[0]) if missing else True

    @classmethod
    def fingerprint_inputs(cls, model=None, adapter=None, components=None, zero_text=None, **_):
        source = find_models().get(model)
        parts = find_components().values() if components == AUTO else (find_components().get(components),)
        return folders.files_state(source, find_adapters().get(adapter), find_tensors().get(zero_text), *parts)

    @classmethod
    def execute(cls, model, adapter, components, zero_text, dtype, clip=None, vae=None) -> io.NodeOutput:
        from ..flexiact_core.amg.loading import load_amg
        from ..flexiact_core.amg.rehearsal import LABEL, make_small_amg

        with memory.normal_tensors():
            if model == LABEL:
                return io.NodeOutput(amg_parts.to_amg_model(make_small_amg()))
            source = folders.path_of(model, find_models(), FILES.missing(model))
            parts = components_of(source, components) if clip is None or vae is None else None
            amg = load_amg(
                source, amg_parts.compute_dtype(dtype), components=parts, adapter=find_adapters().get(adapter),
                zero_text=find_tensors().get(zero_text), tokenizer_folder=amg_parts.tokenizer_folder(),
                max_bytes=memory.free_bytes(),
            )  # fmt: skip
            return io.NodeOutput(amg_parts.to_amg_model(amg, clip, vae))


class AMGSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from ..flexiact_core.kernels import KERNEL_NAMES

        return io.Schema(
            node_id="AMGSampler",
            display_name="AMG Sampler",
            category=CATEGORY,
            description=(
                "Makes a video: who moves, how, and seen from where is the avatar's; what people and scene look like "
                "is the prompt's."
            ),
            search_aliases=["amg", "avatar to video", "3d to video", "change background", "move camera"],
            inputs=[
                AMGSocket.Input("model", lazy=True, tooltip="The model from Load AMG."),
                io.MultiType.Input(
                    "avatar",
                    types=[io.Image, io.Video, AMGAvatarSocket],
                    lazy=True,
                    tooltip=(
                        "Dressed, coloured avatars on black, 16 frames at 8 per second: from Render Avatars, a VIDEO, "
                        "or Load AMG Demo Folder. Transparent frames are laid over black."
                    ),
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the people wear and do, the scene and its light, in a few sentences.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    tooltip="What to keep away from. Empty is the released setting. Has no effect at cfg 1.",
                ),
                _side("width"),
                _side("height"),
                io.Int.Input(
                    "num_frames",
                    default=16,
                    min=0,
                    max=240,
                    tooltip="Frames of the avatar to use, from the first. 16: what AMG learned. 0: all there are.",
                ),
                inputs.steps(20, 1000, "Denoising steps. Fewer are faster and rougher; 20 is the released value."),
                io.Float.Input(
                    "cfg",
                    default=3.0,
                    min=1.0,
                    max=30.0,
                    step=0.1,
                    tooltip="Guidance towards the prompt. 1: none, half the work. 3: released value.",
                ),
                inputs.seed(),
                io.Float.Input(
                    "fps",
                    default=8.0,
                    min=1.0,
                    max=60.0,
                    step=1.0,
                    tooltip=(
                        "Frames per second at which a VIDEO avatar is read and the result is played. 8: as AMG was "
                        "trained. The authors play results at 4, half as fast."
                    ),
                ),
                io.Combo.Input(
                    "fit",
                    options=["cover", "release"],
                    default="cover",
                    tooltip=(
                        "How avatar frames of another size are fitted. cover: scaled to cover the size, cut at the "
                        "centre. release: as the authors' scripts do it, of 16:9 frames the middle 500 of 720 rows."
                    ),
                ),
                io.Combo.Input(
                    "long_prompt",
                    options=["cut", "chunks"],
                    default="cut",
                    tooltip=(
                        "What becomes of a prompt of more than 75 tokens. cut: the rest is left out, as in the "
                        "release. chunks: all of it is read, in pieces of 75."
                    ),
                ),
                io.Combo.Input(
                    "attention",
                    options=list(KERNEL_NAMES),
                    default=KERNEL_NAMES[0],
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "The attention kernel. auto: torch's own choice. flash, cudnn, efficient, math: torch's "
                        "others, the same but for rounding. sage: SageAttention 2, where it is installed; it compares "
                        "in 8 bits, and so changes the video a little."
                    ),
                ),
                io.Boolean.Input(
                    "compiled",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "On: each level of the UNet is compiled by torch, once for a size, which takes minutes. The "
                        "video differs in rounding only. Off: nothing is compiled."
                    ),
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="A prompt encoded by Stable Diffusion 2's CLIP; goes before 'prompt'.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What to keep away from, encoded; goes before 'negative_prompt'.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The frames, as many as the avatar's."),
                io.Video.Output(display_name="video", tooltip="The same frames as a video at 'fps'."),
            ],
        )

    @classmethod
    def check_lazy_status(cls, width, height, steps, model=None, avatar=None, **_):
        from ..flexiact_core.amg.pictures import check_avatar_size

        # Any model's least; the one that is loaded may need more.
        check_avatar_size(width, height, 16)
        return not_computed({"model": model, "avatar": avatar})

    @classmethod
    def execute(cls, model: AMGModel, avatar, positive=None, negative=None, **settings) -> io.NodeOutput:
        chosen = Settings(**settings)
        frames = sample_frames(model, avatar, chosen, positive, negative)
        return io.NodeOutput(frames, media.to_video(frames, chosen.fps))


class LoadAMGDemoFolder(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadAMGDemoFolder",
            display_name="Load AMG Demo Folder",
            category=CATEGORY,
            description=(
                "Reads a folder of the authors' _demo_data as it is: encoded avatars or their pictures, every third "
                "frame, and the captions."
            ),
            search_aliases=["amg demo", "change_background", "move_camera", "change_motion"],
            inputs=[
                io.String.Input(
                    "folder",
                    tooltip=(
                        "change_background, change_motion or move_camera of the authors' _demo_data, in ComfyUI's "
                        "input folder or in a model folder."
                    ),
                ),
                io.Int.Input(
                    "start",
                    default=0,
                    min=0,
                    max=100000000,
                    tooltip="Number of the first frame, as in its file's name. 0: the first with a whole clip.",
                ),
                io.Int.Input(
                    "step",
                    default=3,
                    min=1,
                    max=100,
                    tooltip="Numbers from one frame to the next. 3: of 24 per second those of 8, as the authors do.",
                ),
                io.Int.Input("num_frames", default=16, min=1, max=240, tooltip="Frames of the clip. 16: released."),
            ],
            outputs=[
                AMGAvatarSocket.Output(display_name="avatar", tooltip="The clip, for AMG Sampler."),
                io.String.Output(
                    display_name="prompts",
                    is_output_list=True,
                    tooltip="The captions in the folder, one after the other: a video of each. Empty if it has none.",
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="The pictures; of encoded frames a rough guess, 32x32 pixels for the authors' clips.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder=None, **_):
        return folders.input_state(folder)

    @classmethod
    def execute(cls, folder, start, step, num_frames) -> io.NodeOutput:
        from ..flexiact_core.amg.released import preview, read_demo

        clip = read_demo(folders.input_path(folder), start, step, num_frames)
        return io.NodeOutput(clip, list(clip.captions) or [""], preview(clip))


def _side(name: str):
    return io.Int.Input(
        name,
        default=256,
        min=16,
        max=2048,
        step=16,
        tooltip=f"{name.capitalize()} in pixels, a multiple of 64. AMG learned 256x256. An encoded avatar has its own.",
    )
