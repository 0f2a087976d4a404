"""Which CogVideoX a transformer's files hold: told by config, keys and shapes, never by name."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..errors import FileError
from .family import COGVIDEOX_1_0, COGVIDEOX_1_5, FAMILIES
from .pose_norms import add_pose_norms, has_pose_norms

if TYPE_CHECKING:
    from diffusers import CogVideoXTransformer3DModel

LATENT_CHANNELS = COGVIDEOX_1_0.latent_channels

# What single files, which come without a config, do not tell of themselves: the released values.
_ALL_5B = {
    "num_attention_heads": 48,
    "in_channels": 2 * LATENT_CHANNELS,
    "num_layers": 42,
    "max_text_seq_length": COGVIDEOX_1_0.text_tokens,
    "use_rotary_positional_embeddings": True,
}
COGVIDEOX_5B_I2V = _ALL_5B | {"use_learned_positional_embeddings": True}
COGVIDEOX_15_5B_I2V = _ALL_5B | {
    "use_learned_positional_embeddings": False,
    "patch_size": 2,
    "patch_size_t": 2,
    "patch_bias": False,
    "ofs_embed_dim": 512,
    "sample_width": 300,
    "sample_height": 300,
    "sample_frames": 81,
}
# Keys of a config that are read here and that diffusers does not know: rotary_positions(), own_values(), own_bias().
OWN_KEYS = ("rotary_spacing", "run", "motion_bias")
CLASS_NAME = "CogVideoXTransformer3DModel"

NEEDED = (
    "FlexiAct needs a CogVideoX image-to-video base (32 input channels): 1.0, such as CogVideoX-5b-I2V, or 1.5, such "
    "as CogVideoX1.5-5B-I2V or DynamiCtrl."
)


def describe_transformer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The parts of a CogVideoX transformer config that its tensors' shapes tell; empty if they are of no CogVideoX."""
    patch, text = shapes.get("patch_embed.proj.weight"), shapes.get("patch_embed.text_proj.weight")
    norm = shapes.get("transformer_blocks.0.attn1.norm_q.weight")
    time = shapes.get("time_embedding.linear_2.weight")
    if not (patch and text and norm and time):
        return {}
    width, head_dim = patch[0], norm[0]
    layers = {key.split(".")[1] for key in shapes if key.startswith("transformer_blocks.")}
    ofs = shapes.get("ofs_embedding.linear_1.weight")
    described = {
        "num_attention_heads": width // head_dim,
        "attention_head_dim": head_dim,
        "num_layers": len(layers),
        "text_embed_dim": text[1],
        "time_embed_dim": time[0],
        "use_learned_positional_embeddings": "patch_embed.pos_embedding" in shapes,
        "ofs_embed_dim": ofs[1] if ofs else None,
    }
    if len(patch) == 2:
        # A linear layer over 2 x 2 pixels of 2 frames; patches of other sizes cannot be told apart.
        return described | {"patch_size": 2, "patch_size_t": 2, "in_channels": patch[1] // 8}
    return described | {"patch_size_t": None, "patch_size": patch[-1], "in_channels": patch[1]}


def complete_config(described: Mapping[str, Any], beside: Mapping[str, Any] | None) -> dict[str, Any]:
    """A whole config: what shapes tell, the rest from a config `beside` it of the same family, or as released."""
    table = COGVIDEOX_5B_I2V if described["patch_size_t"] is None else COGVIDEOX_15_5B_I2V
    if beside is not None and beside.get("patch_size_t") == described["patch_size_t"]:
        table = dict(beside)
    return table | dict(described)


def refuse_other_kinds(name: str, config: Mapping[str, Any], keys: Collection[str] = ()) -> None:
    """Passes for an image-to-video base of a known family. Raises FileError otherwise: what it is, what is needed."""
    kind = config.get("_class_name", CLASS_NAME)
    if kind != CLASS_NAME and not has_pose_norms(keys):
        raise FileError(f"{name}: the transformer is a {kind}, no CogVideoX. {NEEDED}")
    in_channels, patch_size_t = config.get("in_channels", 16), config.get("patch_size_t")
    if patch_size_t not in {family.patch_size_t for family in FAMILIES}:
        raise FileError(f"{name}: patches of {patch_size_t} latent frames, as no released base has. {NEEDED}")
    if config.get("num_layers", 30) == 30 and config.get("num_attention_heads", 30) == 30:
        raise FileError(
            f"{name}: this is a CogVideoX-2B model (30 layers of width 1920, {in_channels} input channels). {NEEDED}"
        )
    if in_channels == LATENT_CHANNELS:
        raise FileError(f"{name}: this is a text-to-video model (16 input channels, no image input). {NEEDED}")
    if in_channels != 2 * LATENT_CHANNELS:
        raise FileError(
            f"{name}: {in_channels} input channels found, as inpainting and control models have them. {NEEDED}"
        )
    if not config.get("use_rotary_positional_embeddings"):
        raise FileError(f"{name}: the transformer has no rotary positions. {NEEDED}")
    if patch_size_t == COGVIDEOX_1_5.patch_size_t and config.get("use_learned_positional_embeddings"):
        raise FileError(f"{name}: learned positions in a model whose patches span frames. {NEEDED}")


def empty_transformer(config: Mapping[str, Any], keys: Collection[str] = ()) -> CogVideoXTransformer3DModel:
    """diffusers' transformer of a config, its weights on the meta device; with pose norms where `keys` name any."""
    from diffusers import CogVideoXTransformer3DModel

    # Of other keys, ours and those of DynamiCtrl's own class, diffusers would warn.
    fields = inspect.signature(CogVideoXTransformer3DModel.__init__).parameters
    known = {key: value for key, value in config.items() if key in fields}
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel.from_config(known)
    # What a base says of itself beyond diffusers' fields, and has to say wherever its config goes.
    transformer.register_to_config(**{key: config[key] for key in OWN_KEYS if config.get(key) is not None})
    if has_pose_norms(keys):
        add_pose_norms(transformer)
    return transformer
