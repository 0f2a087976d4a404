"""What every sampler node of a CogVideoX base does: encodings, room on the device, previews, decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .host import encodings, memory, progress
from .sockets import BaseModel, RunAcceleration

if TYPE_CHECKING:
    from torch import Tensor

    from ..flexiact_core.cogvideox.acceleration import Acceleration
    from ..flexiact_core.cogvideox.model import Posterior


SHORTER = (
    "Shorter: fewer steps or frames, a step cache in FlexiAct Acceleration, or cfg 1, which halves it and follows the "
    "prompt less."
)


def complete_run(model: BaseModel, **asked: float) -> dict:
    """What widgets asked for (width, height, num_frames, steps, cfg), with the base's own value for each that is 0."""
    from ..flexiact_core.cogvideox.own_values import own_values

    return own_values(model.base.transformer.config, model.base.vae.config).complete(**asked)


def fit_picture(
    model: BaseModel, image: Tensor, name: str, width: int, height: int, num_frames: int, mask: Tensor | None = None
) -> Tensor:
    """The picture (1, height, width, 3) in 0..1 that a video starts from: scaled to cover, cut at the centre.

    What a MASK hides is white. Raises ShapeError, with the input's `name`, if the IMAGE cannot be used, SettingError if
    the base cannot make such a video.
    """
    from ..flexiact_core.cogvideox.family import check_video_size
    from ..flexiact_core.cogvideox.model import fit_picture

    mask = None if mask is None else memory.ordinary(mask)
    picture = fit_picture(model.base, memory.ordinary(image), name, width, height, mask)
    check_video_size(model.base.transformer.config, width, height, num_frames)
    return picture


def sample_video(
    model: BaseModel,
    transformer,
    picture: Tensor,
    prompts: Sequence[str],
    compute: Callable[..., Tensor],
    *,
    num_frames: int,
    steps: int,
    acceleration: Acceleration | None = None,
) -> Tensor:
    """Frames (num_frames, H, W, 3) in 0..1, on the CPU, of the latents that `compute` gives.

    transformer is the patcher to load; picture is as fit_picture() gives it. compute is called once, with the
    picture's posterior, an embedding (1, S, D) of each prompt, and by name `device` and `on_step`, which shows progress
    and a preview of the middle frame at each step and ends the run at Cancel.
    """
    from ..flexiact_core.cogvideox.memory import transformer_bytes

    embeds = [encodings.encode_prompt(model, prompt) for prompt in prompts]
    posterior = encodings.encode_image(model, picture)
    on_step = _show_steps(model, picture, posterior, steps)
    num_latent_frames = model.base.family.count_latent_frames(num_frames)
    needed = transformer_bytes(model.base, num_latent_frames, *posterior.mean.shape[-2:], 2, acceleration)
    with memory.on_device(transformer, needed) as device:
        latents = compute(posterior, *embeds, device=device, on_step=on_step)
    return decode(model, latents, (num_frames, *picture.shape[1:3]))


def acceleration_of(model: BaseModel, asked: RunAcceleration | None) -> RunAcceleration:
    """How a run saves time: as asked for by FlexiAct Acceleration, else as the base's card says."""
    from ..flexiact_core.cogvideox.acceleration import EXACT

    return asked or RunAcceleration(model.plan.acceleration if model.plan else EXACT)


def used_prompts(prompt: str, negative_prompt: str, cfg: float) -> tuple[str, str]:
    """The prompts to encode: at cfg 1 the negative one has no effect, and the prompt stands for it at no cost."""
    return (prompt, prompt) if cfg == 1 else (prompt, negative_prompt)


def decode(model: BaseModel, latents: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Frames (T, H, W, 3) in 0..1, on the CPU, of latents (1, L, C, h, w); size is (T, H, W)."""
    from ..flexiact_core.cogvideox.memory import decode_bytes
    from ..flexiact_core.cogvideox.model import decode_latents
    from ..flexiact_core.video import to_frames

    tile_px = (model.plan and model.plan.tile_px) or model.base.family.tile_px
    with memory.on_device(model.vae, decode_bytes(model.base, *size, tile_px)) as device:
        on_part = progress.LongCall("Decoding the frames")
        return to_frames(decode_latents(model.base.vae, latents, device, tile_px, on_part)).cpu()


def _show_steps(model: BaseModel, picture: Tensor, posterior: Posterior, steps: int) -> Callable[[int, Tensor], None]:
    from ..flexiact_core.cogvideox.model import fit_preview, preview_frame

    preview = fit_preview(picture, posterior.mean * model.base.vae.config.scaling_factor)
    bar = progress.SamplingProgress(steps, SHORTER)

    def on_step(index, clean_latents):
        bar.step(index + 1, preview_frame(clean_latents, preview, clean_latents.shape[1] // 2))

    return on_step
