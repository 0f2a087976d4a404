"""The parts of a CogVideoX image-to-video base, and what each computes around the transformer.

Shape letters: B batch, T frames, L latent frames, C channels, H W height and width (h w in latents), S text tokens,
D text width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..clips import ClipFormat
from ..errors import FileError
from ..modules import OnPart, share_weights, watch_calls
from ..video import check_single_image, fit_frames, lay_over_white
from ..weight_files import FileStamp
from .family import COGVIDEOX_1_0, Family, family_of

# The value of "rotary_spacing" in the config of a transformer trained with rotary positions as diffusers 0.42 spaces
# them, not as the release does.
SCALED_STOP = "scaled_stop"

# Of the VAE, what a long call can be stopped before: diffusers' class of its convolutions.
VAE_LAYER = "CogVideoXCausalConv3d"

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
    from transformers import T5EncoderModel

    from .tokenizer import Tokenizer


@dataclass(frozen=True)
class CogVideoXI2V:
    """A loaded CogVideoX image-to-video base; every module on the CPU, in eval mode, frozen."""

    transformer: CogVideoXTransformer3DModel
    vae: AutoencoderKLCogVideoX
    text_encoder: T5EncoderModel
    tokenizer: Tokenizer
    scheduler_config: Mapping[str, Any]
    dtype: torch.dtype  # what the modules compute in; weights may be stored smaller
    files: tuple[FileStamp, ...] = ()  # large files that hold weights still: who runs the base checks them first

    @property
    def family(self) -> Family:
        """What this base shares with others of its kind."""
        return family_of(self.transformer.config)


@dataclass(frozen=True, eq=False)
class Posterior:
    """What the VAE says of some frames: mean and standard deviation, each (1, L, C, h, w), unscaled."""

    mean: Tensor
    std: Tensor


def base_signature(transformer: CogVideoXTransformer3DModel) -> str:
    """The name of what motion tokens and adapters must fit: family, layers x width, e.g. 'cogvideox-i2v-42x3072'."""
    config = transformer.config
    return f"{family_of(config).signature}-{config.num_layers}x{width_of(config)}"


def check_learned_on(what: str, learned_on: str | None, transformer: CogVideoXTransformer3DModel) -> None:
    """Passes if `learned_on`, a base_signature(), is of the transformer's family; sizes are not looked at.

    None is 1.0: the released files do not say what they were learned on. Raises FileError naming both.
    """
    signature = family_of(transformer.config).signature
    learned_on = learned_on or COGVIDEOX_1_0.signature
    if learned_on != signature and not learned_on.startswith(f"{signature}-"):
        raise FileError(
            f"{what}: learned on {learned_on}; the loaded base is {base_signature(transformer)}. Layers of both have "
            "the same sizes and mean something else. Load the base it was learned on, or train it again on this one."
        )


def width_of(config: Any) -> int:
    """The width of a token in a transformer with this config."""
    return config.num_attention_heads * config.attention_head_dim


def native_size(base: CogVideoXI2V) -> tuple[int, int, int]:
    """Width and height in pixels and number of frames of the videos that the base was trained on."""
    return base.vae.config.sample_width, base.vae.config.sample_height, base.transformer.config.sample_frames


def clip_format(base: CogVideoXI2V) -> ClipFormat:
    """The clips that the base learns from."""
    family, (width_px, height_px, max_frames) = base.family, native_size(base)
    multiple, offset = family.frame_multiple, family.clip_offset
    # A single frame has no motion in it.
    least = offset + (multiple if offset == 1 else 0)
    return ClipFormat(width_px, height_px, family.fps, max_frames, least, multiple, offset)


def fit_picture(
    base: CogVideoXI2V, image: Tensor, name: str, width_px: int, height_px: int, mask: Tensor | None = None
) -> Tensor:
    """One picture (1, height_px, width_px, 3) in 0..1, scaled to cover the size and cut at the centre.

    image is (1, H, W, C); what a mask (1, H, W) hides, as lay_over_white() takes it, is white. Raises ShapeError, with
    the input's `name`, if it is no single picture, or too small, or the mask does not fit.
    """
    picture = check_single_image(image, name, base.family.size_multiple)
    if mask is not None:
        picture = lay_over_white(picture, mask)
    return fit_frames(picture, width_px, height_px)


def for_num_latent_frames(
    transformer: CogVideoXTransformer3DModel, num_latent_frames: int
) -> CogVideoXTransformer3DModel:
    """The transformer, ready for this many latent frames; the same weights, the one given is left as it is.

    A base with learned positions keeps those of the first frames; diffusers would fall back to sine positions
    that the base was not trained with.
    """
    config = transformer.config
    num_frames = (num_latent_frames - 1) * config.temporal_compression_ratio + 1
    if not config.use_learned_positional_embeddings or num_frames == config.sample_frames:
        return transformer
    patches = (config.sample_height // config.patch_size) * (config.sample_width // config.patch_size)
    twin = share_weights(transformer)
    positions = twin.patch_embed.pos_embedding
    twin.patch_embed._buffers = {
        "pos_embedding": positions[:, : config.max_text_seq_length + num_latent_frames * patches]
    }
    twin.patch_embed.sample_frames = num_frames
    return twin


# Places are laid out by NumPy, once a step: a compiler gains nothing there, and torch's fails on it.
@torch.compiler.disable
def rotary_positions(
    config: Mapping[str, Any], num_latent_frames: int, latent_height: int, latent_width: int
) -> tuple[Tensor, Tensor] | None:
    """Cosines and sines of the rotary positions, each (video tokens, head width), float32 on the CPU.

    Positions of the patches are laid out against the family's grid, the size it was trained at: fitted into that
    rectangle, centred, and spaced evenly without its end (diffusers 0.31, which the released files were made with).
    A config whose "rotary_spacing" is SCALED_STOP says that its weights learned another spacing. A family without a
    grid counts patches.
    None for a base without rotary positions.
    """
    if not config["use_rotary_positional_embeddings"]:
        return None
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    patch, head_dim = config["patch_size"], config["attention_head_dim"]
    depth = num_latent_frames // (config.get("patch_size_t") or 1)
    rows, columns = latent_height // patch, latent_width // patch
    down, across = _patch_positions(config, rows, columns)
    # A quarter of the channels turns with the frame, three eighths each with row and column.
    frame = get_1d_rotary_pos_embed(head_dim // 4, np.arange(depth, dtype=np.float32), use_real=True)
    row = get_1d_rotary_pos_embed(head_dim // 8 * 3, down, use_real=True)
    column = get_1d_rotary_pos_embed(head_dim // 8 * 3, across, use_real=True)
    shape = (depth, rows, columns, -1)
    cos, sin = (
        torch.cat([t[:, None, None].expand(shape), h[:, None].expand(shape), w.expand(shape)], dim=-1).flatten(0, 2)
        for t, h, w in zip(frame, row, column, strict=True)
    )
    return cos, sin


def _patch_positions(config: Mapping[str, Any], rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import get_resize_crop_region_for_grid

    grid = family_of(config).grid
    if grid is None:
        return np.arange(rows, dtype=np.float32), np.arange(columns, dtype=np.float32)
    (top, left), (bottom, right) = get_resize_crop_region_for_grid((rows, columns), grid[1], grid[0])
    space = _spread_to_scaled_stop if config.get("rotary_spacing") == SCALED_STOP else _spread
    return space(top, bottom, rows), space(left, right, columns)


def _spread(start: float, stop: float, count: int) -> np.ndarray:
    return np.linspace(start, stop, count, endpoint=False, dtype=np.float32)


def _spread_to_scaled_stop(start: float, stop: float, count: int) -> np.ndarray:
    # As newer diffusers space. It is the same only where the start is 0.
    return torch.linspace(start, stop * (count - 1) / count, count, dtype=torch.float32).numpy()


def count_tokens(tokenizer: Tokenizer, prompt: str) -> int:
    """How many tokens a prompt has, its end token included, before any cut."""
    return len(tokenizer(prompt).input_ids)


@torch.no_grad()
def encode_prompt(
    text_encoder: T5EncoderModel,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    device: torch.device,
    on_part: OnPart | None = None,
) -> Tensor:
    """Embeddings (1, S, D) of a prompt, padded or cut to `length` tokens, computed on `device`, where the encoder is.

    Padding is attended to, as in training of the base; a prompt that is cut still ends with the end token.
    on_part is called before each layer with how many are done and of how many; it may raise to stop.
    """
    tokens = tokenizer(prompt).input_ids
    if len(tokens) > length:
        tokens = [*tokens[: length - 1], tokens[-1]]
    tokens = tokens + [tokenizer.pad_token_id] * (length - len(tokens))
    watched = watch_calls(text_encoder, "", "T5Block", on_part)
    return watched(torch.tensor([tokens], device=device))[0]


@torch.no_grad()
def encode_pixels(
    vae: AutoencoderKLCogVideoX, pixels: Tensor, device: torch.device, on_part: OnPart | None = None
) -> Posterior:
    """The VAE's posterior of pixels (1, 3, T, H, W) in -1..1, float32 on the CPU; computed on `device`.

    on_part is called before each layer of each few frames, as in encode_prompt().
    """
    few_frames = max(1, pixels.shape[2] // vae.num_sample_frames_batch_size)
    watched = watch_calls(vae, "encoder", VAE_LAYER, on_part, few_frames)
    with QuickConvolutions():
        distribution = watched.encode(pixels.to(device, vae.dtype)).latent_dist
    return Posterior(_frames_first(distribution.mean), _frames_first(distribution.std))


def sample_posterior(posterior: Posterior, scaling_factor: float, generator: torch.Generator) -> Tensor:
    """Latents (1, L, C, h, w) drawn from a posterior, in the scale that the transformer works in."""
    noise = torch.randn(posterior.mean.shape, generator=generator)
    return (posterior.mean + posterior.std * noise) * scaling_factor


def condition_scale(vae: AutoencoderKLCogVideoX) -> float:
    """The scale of the latents of a condition image, which some bases were trained with turned round."""
    scale = vae.config.scaling_factor
    return 1 / scale if vae.config.get("invert_scale_latents") else scale


def pad_image_latents(image_latent: Tensor, num_latent_frames: int) -> Tensor:
    """Condition latents (B, num_latent_frames, C, h, w): the image in frame 0, zeros after."""
    return F.pad(image_latent, (0, 0, 0, 0, 0, 0, 0, num_latent_frames - 1))


@torch.no_grad()
def decode_latents(
    vae: AutoencoderKLCogVideoX,
    latents: Tensor,
    device: torch.device,
    tile_px: tuple[int, int] = COGVIDEOX_1_0.tile_px,
    on_part: OnPart | None = None,
) -> Tensor:
    """Pixels (1, 3, T, H, W), about -1..1, of latents (1, L, C, h, w); computed on `device`, where the VAE is.

    Frames larger than tile_px, height and width, are decoded in blended tiles: whole ones of 480x720 would need far
    more memory. on_part is called before each layer of each tile of each few frames, as in encode_prompt().
    """
    unscaled = rearrange(latents, "b l c h w -> b c l h w") / vae.config.scaling_factor
    tiled = share_weights(vae)
    tiled.enable_tiling(*tile_px)
    few_frames = max(1, latents.shape[1] // vae.num_latent_frames_batch_size)
    tiled = watch_calls(tiled, "decoder", VAE_LAYER, on_part, few_frames * _count_tiles(tiled, *latents.shape[-2:]))
    with QuickConvolutions():
        return tiled.decode(unscaled.to(device, vae.dtype)).sample


class QuickConvolutions(TorchFunctionMode):
    """Convolutions of one small video by oneDNN, which torch takes on a CPU only for large videos or several at once.

    The float32 kernel of its own that it takes for the rest needs several times as long on x86 (benchmarks/RESULTS.md).
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.conv3d and not kwargs and len(args) == 7 and self._is_slow(*args[:2]):
            values, weight, bias, stride, padding, dilation, groups = args
            return torch.mkldnn_convolution(values, weight, bias, padding, stride, dilation, groups)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _is_slow(values: Tensor, weight: Tensor) -> bool:
        # A kernel of 1x1x1 is a matrix product, and quick as it is.
        return (
            values.device.type == "cpu"
            and values.dtype == weight.dtype == torch.float32
            and len(values) == 1
            and max(weight.shape[2:]) > 1
            and torch.backends.mkldnn.is_available()
            and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        )


def _count_tiles(vae: AutoencoderKLCogVideoX, latent_height: int, latent_width: int) -> int:
    if latent_height <= vae.tile_latent_min_height and latent_width <= vae.tile_latent_min_width:
        return 1
    steps = (
        int(vae.tile_latent_min_height * (1 - vae.tile_overlap_factor_height)),
        int(vae.tile_latent_min_width * (1 - vae.tile_overlap_factor_width)),
    )
    return math.ceil(latent_height / steps[0]) * math.ceil(latent_width / steps[1])


def fit_preview(image: Tensor, latent: Tensor) -> Tensor:
    """A linear map (C + 1, 3) from latents to RGB, fitted by least squares on one picture and its own latent.

    image is (1, H, W, 3) in 0..1, latent (1, 1, C, h, w). Works for any VAE, and shows this picture's colours best.
    """
    height, width = latent.shape[-2:]
    colours = F.adaptive_avg_pool2d(rearrange(image, "b h w c -> b c h w"), (height, width))[0].flatten(1).T
    features = _with_constant(latent[0, 0].float().cpu().flatten(1).T)
    # A weak pull to zero keeps directions the picture does not show from running wild.
    gram = features.T @ features + 1e-3 * features.shape[0] * torch.eye(features.shape[1])
    return torch.linalg.solve(gram, features.T @ colours)


def preview_frame(latents: Tensor, preview: Tensor, frame: int) -> Tensor:
    """A small picture (h, w, 3) in 0..1 of one latent frame of latents (1, L, C, h, w), by a map of fit_preview."""
    channels_last = rearrange(latents[0, frame].float().cpu(), "c h w -> h w c")
    return (_with_constant(channels_last) @ preview).clamp(0, 1)


def _with_constant(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def _frames_first(latents: Tensor) -> Tensor:
    return rearrange(latents, "b c l h w -> b l c h w").float().cpu()
