"""ComfyUI's own CogVideoX: its MODEL, CLIP and VAE from the parts of a base, and what is set right in it.

ComfyUI 0.30 leaves out the rotary positions of CogVideoX 1.0 where a model has learned ones, scales them in another
way, adds no learned positions to the text, and samples in a scale that only one of its samplers can. What is set here
are absolute values on a clone of the patcher: nothing global, and right as well where ComfyUI learns it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ...flexiact_core.errors import FileError


def make_model(config: Mapping[str, Any], state: dict, scale: float, dtype=None, disable_dynamic: bool = False):
    """A MODEL of ComfyUI's own class, set right, from a transformer's config and tensors by native name.

    scale is the VAE's scaling factor. dtype is what weights are kept in; None: as ComfyUI chooses.
    """
    import comfy.model_management as devices
    import comfy.model_patcher
    import comfy.supported_models
    import comfy.utils

    from ...flexiact_core.cogvideox.kinds import OWN_KEYS

    device, offload_device = devices.get_torch_device(), devices.unet_offload_device()
    known = comfy.supported_models.CogVideoX_I2V({**_unet_config(config)})
    dtypes = list(known.supported_inference_dtypes)
    dtype = dtype or devices.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=dtypes,
        weight_dtype=comfy.utils.weight_dtype(state),
    )
    known.set_inference_dtype(dtype, devices.unet_manual_cast(dtype, device, dtypes), device=device)
    model = known.get_model(state, "")
    model.flexiact_config = {key: config[key] for key in OWN_KEYS if config.get(key) is not None}
    model.latent_format.scale_factor = scale
    _hold_positions(model.diffusion_model, state)
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=device, offload_device=offload_device)
    if not devices.is_device_cpu(offload_device):
        model.to(offload_device)
    left = dict(state)
    model.load_model_weights(left, "", assign=patcher.is_dynamic())
    return with_fixes(patcher, config)


def with_fixes(patcher, config: Mapping[str, Any] | None = None):
    """A clone of a MODEL with CogVideoX 1.0's positions and sampling class; the one given is left as it is.

    config says more of the transformer than its shapes, such as how its rotary positions were spaced.
    Raises FileError if it is another model, with what it is.
    """
    import comfy.model_sampling

    check_kind(patcher)
    fixed, model = patcher.clone(), patcher.model
    transformer = model.diffusion_model
    config = describe(transformer) | dict(config or {}) | {"use_rotary_positional_embeddings": True}
    fixed.add_object_patch("diffusion_model._get_rotary_emb", _RotaryPositions(config))
    fixed.add_object_patch("diffusion_model.use_rotary_positional_embeddings", True)
    if hasattr(transformer.patch_embed, "pos_embedding"):
        fixed.add_object_patch("diffusion_model.patch_embed.forward", _PatchEmbedding(transformer.patch_embed))

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
        pass

    fixed.add_object_patch("model_sampling", Sampling(model.model_config, zsnr=True))
    return fixed


def check_kind(patcher) -> None:
    """Passes for CogVideoX 1.0 image-to-video. Raises FileError otherwise, naming what was found."""
    import comfy.model_base

    model = patcher.model
    needed = "CogVideoX 1.0 image-to-video is needed, such as CogVideoX-5b-I2V."
    if not isinstance(model, comfy.model_base.CogVideoX):
        raise FileError(f"model: this is {type(model).__name__}, no CogVideoX. {needed}")
    transformer = model.diffusion_model
    channels = transformer.in_channels
    if transformer.patch_size_t is not None:
        found = "CogVideoX 1.5 (patches of two frames), which needs no fixes"
    elif len(transformer.blocks) == 30 and channels == 16:
        found = "CogVideoX-2B, a text-to-video model (30 layers of width 1920, no image input)"
    elif channels == 16:
        found = "a text-to-video model (16 input channels, no image input)"
    elif channels != 32:
        found = f"an inpainting or control model ({channels} input channels)"
    else:
        return
    raise FileError(f"model: this is {found}. {needed}")


def describe(transformer) -> dict[str, Any]:
    """What of a diffusers config ComfyUI's own transformer says of itself."""
    return {
        "num_layers": len(transformer.blocks),
        "num_attention_heads": transformer.num_attention_heads,
        "attention_head_dim": transformer.attention_head_dim,
        "patch_size": transformer.patch_size,
        "patch_size_t": transformer.patch_size_t,
        "max_text_seq_length": transformer.max_text_seq_length,
    }


def own_config(patcher) -> dict[str, Any]:
    """What the base of a MODEL says of itself in its config, beyond sizes; nothing where another loader read it."""
    return getattr(patcher.model, "flexiact_config", {})


def shapes_of(patcher) -> dict[str, tuple[int, ...]]:
    """The shapes of a MODEL's transformer by diffusers' names."""
    from ...flexiact_core.cogvideox.native_keys import to_diffusers

    state = patcher.model.diffusion_model.state_dict(keep_vars=True)
    return {to_diffusers(key): tuple(value.shape) for key, value in state.items()}


class _RotaryPositions:
    """Rotary positions in place of the transformer's _get_rotary_emb, as the base was trained with them."""

    def __init__(self, config: Mapping[str, Any]):
        self.config = dict(config)

    def __call__(self, rows: int, columns: int, frames: int, device):
        from ...flexiact_core.cogvideox.model import rotary_positions

        patch = self.config["patch_size"]
        tables = rotary_positions(self.config, frames, rows * patch, columns * patch)
        return tuple(table.to(device) for table in tables)


class _PatchEmbedding:
    """The forward of a patch embedding with learned positions, which are added to text and video alike."""

    def __init__(self, embedding):
        # The module's own forward may be this one while the patch is on.
        self.embedding, self.forward = embedding, type(embedding).forward

    def __call__(self, text_embeds, image_embeds):
        embedding = self.embedding
        out = self.forward(embedding, text_embeds, image_embeds)
        num_text, most = text_embeds.shape[1], embedding.max_text_seq_length
        positions = embedding.pos_embedding.to(device=out.device, dtype=out.dtype)
        video = positions[:, most : most + out.shape[1] - num_text]
        if not embedding.use_learned_positional_embeddings:
            out[:, num_text:] += video
        out[:, : min(num_text, most)] += positions[:, : min(num_text, most)]
        return out


def _unet_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The table that ComfyUI's model is made from; its learned positions are put in after, whatever their width."""
    same = (
        "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "time_embed_dim", "text_embed_dim",
        "num_layers", "sample_width", "sample_height", "sample_frames", "patch_size", "max_text_seq_length",
    )  # fmt: skip
    return {"image_model": "cogvideox", "patch_size_t": None, "use_rotary_positional_embeddings": True} | {
        name: config[name] for name in same if name in config
    }


def _hold_positions(transformer, state: Mapping[str, Any]) -> None:
    positions = state.get("patch_embed.pos_embedding")
    if positions is not None:
        transformer.patch_embed.register_buffer("pos_embedding", positions.clone())


def show_colours(patcher, vae) -> None:
    """Lets samplers show a preview of this MODEL: fits the map from latents to colours on a card that `vae` encodes.

    It is set on the model, where samplers look before a patch is on; nothing but previews reads it.
    """
    from ...flexiact_core.cogvideox.model import fit_preview

    card = _colour_card()
    latent = vae.encode(card).movedim(1, 2).float() * patcher.model.latent_format.scale_factor
    colours = fit_preview(card, latent) * 2
    colours[-1] -= 1
    shown = copy.copy(patcher.model.latent_format)
    shown.latent_rgb_factors, shown.latent_rgb_factors_bias = colours[:-1].tolist(), colours[-1].tolist()
    patcher.model.latent_format = shown


def _colour_card():
    """A picture (1, 128, 128, 3) of soft patches in all colours."""
    import torch
    import torch.nn.functional as F

    drawn = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(drawn, size=(128, 128), mode="bilinear").movedim(1, -1)
