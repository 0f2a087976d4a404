"""What Load CogVideoX (native) does: a base's files to ComfyUI's own MODEL, CLIP and VAE; and what writes into them."""

from __future__ import annotations

from pathlib import Path

from .host import folders, memory, native, native_parts

WEIGHTS = {"as stored": None, "fp8_e4m3fn": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2"}


def load_native(source: Path, components: Path | None, files: dict, weights: str):
    """MODEL, CLIP and VAE of a base that load_base() reads. Raises FileError as it does."""
    from ..flexiact_core.cogvideox.loading import plan_base
    from ..flexiact_core.cogvideox.own_values import own_values

    with memory.normal_tensors():
        plan = plan_base(source, components, vocabulary=folders.t5_vocabulary(), **files)
        _check_family(source, plan)
        scale = plan.vae.module.config.scaling_factor
        vae = native_parts.make_vae(plan.vae.module.config, plan.vae.read_state())
        clip = native_parts.make_clip(
            plan.text_encoder.module.config, plan.tokenizer, plan.text_encoder.read_state(),
            plan.transformer.module.config.max_text_seq_length,
        )  # fmt: skip
    model = load_model(source, components, files, weights, scale)
    native.show_colours(model, vae)
    vae.flexiact_run = own_values(plan.transformer.module.config, plan.vae.module.config)
    model.cached_patcher_init = (load_model, (source, components, files, weights, scale))
    vae.patcher.cached_patcher_init = (load_vae_patcher, (source, components, files))
    return model, clip, vae


def load_model(source: Path, components, files: dict, weights: str, scale: float, disable_dynamic: bool = False):
    """The MODEL alone, read anew: ComfyUI asks for it where a second one of its own is needed."""
    import torch

    from ..flexiact_core.cogvideox.loading import plan_base
    from ..flexiact_core.cogvideox.native_keys import to_native

    with memory.normal_tensors():
        plan = plan_base(source, components, vocabulary=folders.t5_vocabulary(), **files)
        state = {to_native(key): value for key, value in plan.transformer.read_state().items()}
        dtype = getattr(torch, WEIGHTS[weights]) if WEIGHTS[weights] else None
        return native.make_model(dict(plan.transformer.module.config), state, scale, dtype, disable_dynamic)


def load_vae_patcher(source: Path, components, files: dict, disable_dynamic: bool = False):
    """The patcher of a VAE that is read anew."""
    from ..flexiact_core.cogvideox.loading import plan_base

    with memory.normal_tensors():
        plan = plan_base(source, components, vocabulary=folders.t5_vocabulary(), **files)
        return native_parts.make_vae(plan.vae.module.config, plan.vae.read_state()).patcher


def _check_family(source: Path, plan) -> None:
    from ..flexiact_core.cogvideox.family import COGVIDEOX_1_0, family_of
    from ..flexiact_core.errors import FileError

    family = family_of(plan.transformer.module.config)
    if family is not COGVIDEOX_1_0:
        raise FileError(
            f"{source.name}: this is {family.name}. This node loads {COGVIDEOX_1_0.name}; use Load CogVideoX I2V."
        )


def condition_on_picture(positive, negative, vae, picture, size: tuple[int, int, int], seed: int | None):
    """CONDITIONING for both prompts with the picture in it, and empty latents (1, C, L, h, w).

    picture is an IMAGE (1, H, W, 3) that is scaled to cover the size (width, height, frames) and cut at the centre; a
    size that is 0 is the base's own, the released one's where the VAE came from another loader.
    seed draws the picture's latents from what the VAE says of it, as CogVideoX was trained; None takes their mean.
    """
    import torch

    from ..flexiact_core.cogvideox.family import COGVIDEOX_1_0 as family
    from ..flexiact_core.cogvideox.own_values import check_asked, own_values
    from ..flexiact_core.video import check_single_image, fit_frames

    asked = dict(zip(("width", "height", "num_frames"), size, strict=True))
    check_asked(family, asked)
    width, height, num_frames = getattr(vae, "flexiact_run", own_values({})).complete(**asked).values()
    fitted = fit_frames(check_single_image(picture, "image", family.size_multiple), width, height)
    latent = vae.encode(fitted) if seed is None else _draw(vae, fitted, seed)
    shape = (1, family.latent_channels, family.count_latent_frames(num_frames), *latent.shape[-2:])
    conditions = [_with_picture(cut_text(one, family.text_tokens), latent) for one in (positive, negative)]
    return *conditions, {"samples": torch.zeros(shape, device=latent.device)}


def cut_text(conditioning, length: int):
    """CONDITIONING whose embeddings (1, S, D) are no longer than the model reads; the end stays at the end."""
    import torch

    return [
        [embeds if embeds.shape[1] <= length else torch.cat([embeds[:, : length - 1], embeds[:, -1:]], dim=1), values]
        for embeds, values in conditioning
    ]


def _with_picture(conditioning, latent):
    return [[embeds, {**values, "concat_latent_image": latent}] for embeds, values in conditioning]


def _draw(vae, picture, seed: int):
    import comfy.model_management as devices

    from ..flexiact_core.cogvideox.model import Posterior, sample_posterior
    from .host.encodings import generator

    # What VAE.encode() gives is the mean alone; the encoder says the spread as well.
    needed = vae.memory_used_encode((1, 3, 1, *picture.shape[1:3]), vae.vae_dtype)
    devices.load_models_gpu([vae.patcher], memory_required=needed)
    pixels = vae.process_input(picture).movedim(-1, 1)[:, :, None].to(vae.device, vae.vae_dtype)
    moments, _ = vae.first_stage_model.encoder(pixels)
    mean, log_variance = (part.float().cpu().movedim(1, 2) for part in moments.chunk(2, dim=1))
    posterior = Posterior(mean, (log_variance.clamp(-30, 20) / 2).exp())
    return sample_posterior(posterior, 1.0, generator(seed)).movedim(1, 2)
