"""The base's node: loading it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..flexiact_core.file_lists import mentions, walk_files
from . import cards, inputs
from .cards import AS_STORED, FLOAT8_FAST
from .host import folders, memory, progress
from .sockets import BaseModel, CogVideoXI2VSocket

if TYPE_CHECKING:
    from ..flexiact_core.cogvideox.cards import Plan

BASES = folders.ModelFolder(
    "CogVideo",
    "hf download zai-org/CogVideoX-5b-I2V --local-dir {folder}/CogVideoX-5b-I2V",
    "the base",
    (
        ("DynamiCtrl-Mask_B01", "hf download gulucaptain/Dynamictrl-Mask_B01 --local-dir {folder}/DynamiCtrl-Mask_B01"),
        ("DynamiCtrl-Mask_C01", "hf download gulucaptain/Dynamictrl-Mask_C01 --local-dir {folder}/DynamiCtrl-Mask_C01"),
        ("DynamiCtrl", "hf download gulucaptain/DynamiCtrl --local-dir {folder}/DynamiCtrl"),
    ),
)

TEXT_ENCODERS = folders.ModelFolder("text_encoders")
VAES = folders.ModelFolder("vae")

SAME_FOLDER = "auto"
FROM_COMPONENTS = "from components"


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
                cards.weights(),
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
                *cards.card_inputs(),
            ],
            outputs=[
                CogVideoXI2VSocket.Output(
                    display_name="model", tooltip="The base, for Apply RefAdapter, Action Transfer and Train Action."
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
        cls, model, components, dtype, weights=AS_STORED, text_encoder=FROM_COMPONENTS, vae=FROM_COMPONENTS,
        card=cards.LARGE, tiles=cards.AUTO, offload=cards.AUTO,
    ) -> io.NodeOutput:  # fmt: skip
        from ..flexiact_core.cogvideox.loading import load_base

        plan = cards.choose_plan(card, weights, tiles, offload)
        source, files = base_path(model), part_files(text_encoder, vae)
        with memory.normal_tensors():
            base = load_base(
                source,
                components_of(source, components, files),
                memory.compute_dtype(dtype),
                keep_float8=plan.float8,
                vocabulary=folders.t5_vocabulary(),
                free_bytes=memory.free_ram_bytes(),
                **files,
            )
        return io.NodeOutput(to_base_model(base, plan, float8_products=weights == FLOAT8_FAST))


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


def to_base_model(base, plan: Plan | None = None, float8_products: bool = False) -> BaseModel:
    """The socket value of a loaded base: each part in a patcher, through which ComfyUI loads and frees it.

    plan is how it takes its place on the card; None: as on a large one. With float8_products, matrices of the
    transformer that are stored in float8 are multiplied in float8 while sampling, where that is possible; where not,
    it is said.
    """
    import comfy.model_management as devices
    import comfy.ops

    from ..flexiact_core.cogvideox.cards import Plan

    plan = plan or Plan()
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
            leaves=plan.leaves,
        ),
        text_encoder=memory.to_patcher(
            base.text_encoder,
            devices.text_encoder_device(),
            devices.text_encoder_offload_device(),
            files=base.files,
            leaves=plan.leaves,
        ),
        vae=memory.to_patcher(
            base.vae,
            devices.vae_device(),
            devices.vae_offload_device(),
            files=base.files,
            leaves=plan.leaves,
        ),
        plan=plan,
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
