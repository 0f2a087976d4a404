"""The base's nodes: loading it, and what makes it sample faster."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..flexiact_core.file_lists import mentions, walk_files
from . import inputs
from .host import folders, memory, progress
from .sockets import AccelerationSocket, BaseModel, CogVideoXI2VSocket, RunAcceleration

BASES = folders.ModelFolder(
    "CogVideo", "hf download zai-org/CogVideoX-5b-I2V --local-dir {folder}/CogVideoX-5b-I2V", "the base"
)

TEXT_ENCODERS = folders.ModelFolder("text_encoders")
VAES = folders.ModelFolder("vae")

SAME_FOLDER = "auto"
FROM_COMPONENTS = "from components"
AS_STORED, FLOAT8_FAST = "as stored", "float8_fast"


class LoadCogVideoXI2V(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadCogVideoXI2V",
            display_name="Load CogVideoX I2V",
            category="FlexiAct",
            description=(
                "Loads a CogVideoX image-to-video base, 1.0, 1.5 or DynamiCtrl: transformer, VAE and text encoder. "
                "Put it in models/CogVideo. Nothing is downloaded."
            ),
            search_aliases=["cogvideo", "cogvideox loader", "flexiact base", "image to video"],
            inputs=[
                inputs.file_list(
                    "model",
                    find_bases(),
                    "A diffusers folder, or a single-file transformer (.safetensors), in "
                    "models/CogVideo. To fetch the released base: " + BASES.command(),
                ),
                io.Combo.Input(
                    "components",
                    options=[SAME_FOLDER, *find_base_folders()],
                    default=SAME_FOLDER,
                    advanced=True,
                    tooltip=(
                        "The diffusers folder that gives text encoder, tokenizer, VAE and scheduler. auto: the model's "
                        "own folder; for a single file, the only folder there is."
                    ),
                ),
                inputs.dtype(
                    "fp32 needs twice the memory. float8 weights in a file stay float8 and are cast when used."
                ),
                io.Combo.Input(
                    "weights",
                    options=[AS_STORED, "float8", FLOAT8_FAST],
                    default=AS_STORED,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "How the transformer's large matrices are kept in memory. as stored: 16 bits each for the "
                        "released base. float8: 8 bits, half the memory; rounding changes the video a little, and "
                        "RefAdapter then runs beside the weights. float8_fast: also multiplies in 8 bits while "
                        "sampling, faster on cards that can (RTX 40 and newer); changes the video more."
                    ),
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=[FROM_COMPONENTS, *find_text_encoders()],
                    default=FROM_COMPONENTS,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "A T5-v1.1-XXL encoder in models/text_encoders, as other models use it: bf16, fp16 or fp8 "
                        "(.safetensors). It is read in place of the components' own, which is then not needed."
                    ),
                ),
                io.Combo.Input(
                    "vae",
                    options=[FROM_COMPONENTS, *find_vaes()],
                    default=FROM_COMPONENTS,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "A CogVideoX VAE in models/vae (.safetensors, diffusers keys). It is read in place of the "
                        "components' own, which is then not needed."
                    ),
                ),
            ],
            outputs=[
                CogVideoXI2VSocket.Output(
                    display_name="model", tooltip="The base, for Apply RefAdapter, FlexiAct Sampler and Train FAE."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model, text_encoder=FROM_COMPONENTS, vae=FROM_COMPONENTS):
        answers = [folders.check_listed(model, find_bases(), BASES.missing(model))]
        for kind, name, found in ((TEXT_ENCODERS, text_encoder, find_text_encoders), (VAES, vae, find_vaes)):
            if name != FROM_COMPONENTS:
                answers.append(folders.check_listed(name, found(), kind.missing(name)))
        return next((answer for answer in answers if answer is not True), True)

    @classmethod
    def fingerprint_inputs(cls, model=None, components=None, text_encoder=None, vae=None, **_):
        bases = find_bases()
        # A single file takes the rest from a folder of the list.
        folder = [bases.get(components)] if components != SAME_FOLDER else find_base_folders().values()
        parts = find_text_encoders().get(text_encoder), find_vaes().get(vae)
        return folders.files_state(bases.get(model), *folder, *parts)

    @classmethod
    def execute(
        cls, model, components, dtype, weights=AS_STORED, text_encoder=FROM_COMPONENTS, vae=FROM_COMPONENTS
    ) -> io.NodeOutput:
        from ..flexiact_core.cogvideox.loading import load_base

        source, files = base_path(model), part_files(text_encoder, vae)
        with memory.normal_tensors():
            base = load_base(
                source,
                components_of(source, components, files),
                memory.compute_dtype(dtype),
                keep_float8=weights != AS_STORED,
                vocabulary=folders.t5_vocabulary(),
                free_bytes=memory.free_ram_bytes(),
                **files,
            )
        return io.NodeOutput(to_base_model(base, float8_products=weights == FLOAT8_FAST))


class FlexiActAcceleration(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from ..flexiact_core.cogvideox.acceleration import STEP_CACHES
        from ..flexiact_core.kernels import KERNEL_NAMES

        return io.Schema(
            node_id="FlexiActAcceleration",
            display_name="FlexiAct Acceleration",
            category="FlexiAct",
            description=(
                "Ways for FlexiAct Sampler to save time. The result differs from the exact one in rounding only, "
                "unless a step cache or attention 'sage' is chosen."
            ),
            search_aliases=["flexiact speed", "teacache", "first block cache", "taylorseer", "torch compile", "sage"],
            inputs=[
                io.Boolean.Input(
                    "merge_adapter",
                    default=True,
                    tooltip=(
                        "On: RefAdapter is added to the weights while sampling and costs no time; they come back bit "
                        "for bit. Off: it is computed beside them in every layer, as always with float8 weights."
                    ),
                ),
                io.Float.Input(
                    "threshold",
                    default=0.1,
                    min=0.0,
                    max=0.95,
                    step=0.01,
                    tooltip=(
                        "For step_cache first_block: a step is reused where the first layer's change differs by less "
                        "than this fraction from the last full step's. 0: no step is reused. High: fast, less like the "
                        "exact result."
                    ),
                ),
                io.Int.Input(
                    "interval",
                    default=3,
                    min=1,
                    max=10,
                    tooltip=(
                        "For step_cache taylor: one of so many steps is computed, after the first three. 1: every "
                        "step. High: fast, less like the exact result."
                    ),
                ),
                io.Boolean.Input(
                    "compiled",
                    default=False,
                    tooltip=(
                        "Compiles the repeated layer with torch.compile: a wait of up to minutes before the first step "
                        "of a new size, none after it. Needs a compiler that torch can use (Triton on a GPU)."
                    ),
                ),
                io.Combo.Input(
                    "step_cache",
                    options=list(STEP_CACHES),
                    default="off",
                    tooltip=(
                        "off: every step in full. first_block: reuses a step where the first layer hardly changed. "
                        "taylor: computes one step in 'interval' and extrapolates between. Both change the result. "
                        "On the small world, 50 steps of DPM, taylor at 3 was 2.2 times as fast, 49 dB from the exact "
                        "video, at 5 2.9 times, 43 dB; first_block at 0.2 1.9 times, 46 dB."
                    ),
                ),
                io.Combo.Input(
                    "attention",
                    options=list(KERNEL_NAMES),
                    default="auto",
                    tooltip=(
                        "The attention kernel. auto: torch's own choice, best in most cases. flash, cudnn, efficient: "
                        "torch's others, the same but for rounding. math: the reference, slow, and its memory grows "
                        "with the square of the number of tokens. sage: SageAttention 2, where it is installed: "
                        "faster, compares in 8 bits and changes the result a little."
                    ),
                ),
            ],
            outputs=[AccelerationSocket.Output(display_name="acceleration", tooltip="For FlexiAct Sampler.")],
        )

    @classmethod
    def execute(cls, merge_adapter, threshold, interval, compiled, step_cache, attention) -> io.NodeOutput:
        from ..flexiact_core.cogvideox.acceleration import Acceleration

        return io.NodeOutput(
            RunAcceleration(Acceleration(step_cache, threshold, interval, compiled, attention), merge_adapter)
        )


def find_bases() -> dict[str, Path]:
    """All CogVideoX folders and single-file transformers by their names, relative to their model folder, sorted."""
    from ..flexiact_core.cogvideox.loading import is_base_folder

    found: dict[str, Path] = {}
    for root in BASES.roots():
        for folder, subfolders, files in walk_files(root):
            if folder != root and is_base_folder(folder):
                found.setdefault(folder.relative_to(root).as_posix(), folder)
                subfolders.clear()
                continue
            for file in (file for file in files if file.suffix == ".safetensors"):
                if mentions(file, b"patch_embed.text_proj"):
                    found.setdefault(file.relative_to(root).as_posix(), file)
    return dict(sorted(found.items()))


def find_base_folders() -> dict[str, Path]:
    """The diffusers folders among find_bases()."""
    return {name: path for name, path in find_bases().items() if path.is_dir()}


def find_text_encoders() -> dict[str, Path]:
    """Single files of a T5 encoder among ComfyUI's text encoders."""
    return _safetensors(TEXT_ENCODERS, b"encoder.block.0.layer.0.SelfAttention.q.weight")


def find_vaes() -> dict[str, Path]:
    """Single files of a CogVideoX VAE among ComfyUI's VAEs."""
    return _safetensors(VAES, b"decoder.mid_block.resnets.0.norm1.norm_layer.weight")


def base_path(name: str | None) -> Path:
    """Where a base of find_bases() lies. Raises FileError with the sentence if it is not there."""
    return folders.path_of(name, find_bases(), BASES.missing(name))


def base_config(name: str) -> dict:
    """The config of the transformer of a base in find_bases(), of a single file what its shapes say.

    Empty, which is the released base's, for a name that is not there or a base that cannot be read.
    """
    from ..flexiact_core.cogvideox.loading import transformer_config
    from ..flexiact_core.errors import FlexiActError

    source = find_bases().get(name) if name else None
    try:
        return transformer_config(source, None) if source else {}
    except FlexiActError:  # said when the base is loaded
        return {}


def to_base_model(base, float8_products: bool = False) -> BaseModel:
    """The socket value of a loaded base: each part in a patcher, through which ComfyUI loads and frees it.

    With float8_products, matrices of the transformer that are stored in float8 are multiplied in float8 while
    sampling, where that is possible; where not, it is said.
    """
    import comfy.model_management as devices
    import comfy.ops

    gpu = devices.get_torch_device()
    model = BaseModel(
        base=base,
        transformer=memory.to_patcher(
            # The product gives 16 bits.
            base.transformer,
            gpu,
            devices.unet_offload_device(),
            float8_products and base.dtype.itemsize == 2,
            files=base.files,
        ),
        text_encoder=memory.to_patcher(
            base.text_encoder,
            devices.text_encoder_device(),
            devices.text_encoder_offload_device(),
            files=base.files,
        ),
        vae=memory.to_patcher(base.vae, devices.vae_device(), devices.vae_offload_device(), files=base.files),
    )
    if float8_products and not any(isinstance(layer, comfy.ops.fp8_ops.Linear) for layer in base.transformer.modules()):
        progress.say(
            "float8_fast needs a card that multiplies in float8, weights in e4m3, and dtype bf16 or fp16. Something of "
            "that is missing: the weights stay float8, and are cast when they are used."
        )
    return model


def _safetensors(kind: folders.ModelFolder, words: bytes) -> dict[str, Path]:
    found = folders.find_files(kind, words)
    return {name: path for name, path in found.items() if path.suffix == ".safetensors"}


def part_files(text_encoder: str, vae: str) -> dict[str, Path | None]:
    """The single files chosen, by the part they are; None for what the components give."""
    chosen = (("text_encoder", TEXT_ENCODERS, text_encoder, find_text_encoders), ("vae", VAES, vae, find_vaes))
    return {
        part: None if name == FROM_COMPONENTS else folders.path_of(name, found(), kind.missing(name))
        for part, kind, name, found in chosen
    }


def components_of(source: Path, name: str, files: dict[str, Path | None]) -> Path | None:
    """The folder that gives what a single file lacks, by its choice. Raises FileError if it has to be chosen."""
    from ..flexiact_core.errors import FileError

    if name != SAME_FOLDER:
        return base_path(name)
    if source.is_dir():
        return source
    found = find_base_folders()
    if len(found) == 1:
        return next(iter(found.values()))
    if all(files.values()):
        return None
    raise FileError(
        f"{source.name}: a single file holds the transformer alone. Choose under 'components' the diffusers folder "
        f"that gives text encoder and VAE ({len(found)} folders found: {', '.join(list(found)[:4]) or 'none'}), or "
        "choose a file for each under 'text_encoder' and 'vae'."
    )
