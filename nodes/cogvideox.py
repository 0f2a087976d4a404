"""The base model's node."""

from __future__ import annotations

from comfy_api.latest import io

from . import host
from .sockets import CogVideoXI2VSocket

SAME_FOLDER = "auto"
AS_STORED, FLOAT8_FAST = "as stored", "float8_fast"


class LoadCogVideoXI2V(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadCogVideoXI2V",
            display_name="Load CogVideoX I2V",
            category="FlexiAct",
            description=(
                "Loads a CogVideoX 1.0 image-to-video base: transformer, VAE and text encoder. "
                "Put it in models/CogVideo. Nothing is downloaded."
            ),
            search_aliases=["cogvideo", "cogvideox loader", "flexiact base", "image to video"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=host.list_bases() or [host.NONE_FOUND],
                    tooltip=(
                        "A diffusers folder, or a single-file transformer (.safetensors, diffusers keys), in "
                        "models/CogVideo. To fetch the released base: "
                        + host.BASE_DOWNLOAD.format(folder="models/CogVideo")
                    ),
                ),
                io.Combo.Input(
                    "components",
                    options=[SAME_FOLDER, *host.list_base_folders()],
                    default=SAME_FOLDER,
                    advanced=True,
                    tooltip=(
                        "The diffusers folder that gives text encoder, tokenizer, VAE and scheduler. auto: the model's "
                        "own folder; for a single file, the only folder there is."
                    ),
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(host.DTYPES),
                    default="auto",
                    advanced=True,
                    tooltip=(
                        "The number format to compute in. auto: bf16 where the card has it, else fp16; fp32 on a CPU. "
                        "fp32 needs twice the memory. float8 weights in a file stay float8 and are cast when used."
                    ),
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
            ],
            outputs=[
                CogVideoXI2VSocket.Output(
                    display_name="model", tooltip="The base, for Apply RefAdapter, FlexiAct Sampler and Train FAE."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model):
        if model is not None and host.base_path(model) is None:
            return host.missing_base(model)
        return True

    @classmethod
    def execute(cls, model, components, dtype, weights=AS_STORED) -> io.NodeOutput:
        from ..flexiact_core.cogvideox.loading import load_base

        source = host.base_path(model)
        with host.normal_tensors():
            folder = cls._components(source, components)
            base = load_base(source, folder, host.compute_dtype(dtype), keep_float8=weights != AS_STORED)
        return io.NodeOutput(host.to_base_model(base, float8_products=weights == FLOAT8_FAST))

    @classmethod
    def _components(cls, source, name):
        from ..flexiact_core.errors import CheckpointError

        if name != SAME_FOLDER:
            return host.base_path(name)
        if source.is_dir():
            return source
        folders = host.list_base_folders()
        if len(folders) == 1:
            return host.base_path(folders[0])
        raise CheckpointError(
            f"{source.name}: a single file holds the transformer alone. Choose under 'components' the diffusers folder "
            f"that gives text encoder and VAE ({len(folders)} folders found: {', '.join(folders[:4]) or 'none'})."
        )
