"""What AMG Sampler does: the avatar as latents, text once, room on the device, previews, decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from . import amg_parts
from .host import encodings, media, memory, progress
from .sockets import AMGModel

if TYPE_CHECKING:
    from torch import Tensor

# The patchers whose weights take in the LoRA, by the value that they belong to.
_merged: WeakKeyDictionary[AMGModel, Any] = WeakKeyDictionary()


@dataclass(frozen=True)
class Settings:
    """The settings of AMG Sampler, by the names of its inputs."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_frames: int
    steps: int
    cfg: float
    seed: int
    fps: float
    fit: str
    long_prompt: str
    attention: str = "auto"
    compiled: bool = False


def sample_frames(model: AMGModel, avatar, settings: Settings, positive=None, negative=None) -> Tensor:
    """Frames (F, H, W, 3) in 0..1, on the CPU, in which the avatar's motion and camera meet the prompt's words.

    Raises FileError, SettingError and ShapeError if something cannot be used, before the UNet is loaded.
    """
    import torch

    check_model(model)
    generator = encodings.generator(settings.seed)
    frames, parameters = read_avatar(model, avatar, settings)
    texts = read_texts(model, settings, positive, negative)
    # The video's noise is drawn first, so that a seed gives the same noise whatever encodes the avatar.
    noise = torch.randn(noise_shape(parameters), generator=generator)
    latents = as_latents(model, parameters, generator)
    progress.say(about(frames, latents, model))
    return model.pictures.decode(denoise(model, noise, latents, texts, settings))


def check_model(model: AMGModel) -> None:
    """Passes if a model can make videos. Raises FileError otherwise."""
    from ..flexiact_core.amg.parts import NEEDED
    from ..flexiact_core.errors import FileError

    if not model.amg.reads_avatar:
        raise FileError(
            f"{model.amg.name}: a ModelScope base alone has no avatar input (conv_in has 4 channels). Choose an "
            "adapter in Load AMG, load non_ema_0640000.pth, or train one with Train AMG."
        )
    if model.pictures is None:
        raise FileError(f"VAE: this model has none. Choose 'components' in Load AMG, or connect a VAE to it. {NEEDED}")


def read_avatar(model: AMGModel, avatar, settings: Settings):
    """The fitted avatar frames, or None where the avatar comes encoded; and its latents or what the VAE says of it."""
    from ..flexiact_core.amg.model import size_step_px
    from ..flexiact_core.amg.pictures import check_avatar_size, fit_avatar
    from ..flexiact_core.amg.released import DemoClip
    from ..flexiact_core.errors import SettingError

    if avatar is None:
        raise SettingError("avatar: nothing came in. If it is Load 3D's recording, press record in the viewer first.")
    if isinstance(avatar, DemoClip) and avatar.latents is not None:
        return None, avatar.latents[:, :, : settings.num_frames or None]
    check_avatar_size(settings.width, settings.height, size_step_px(model.amg.unet))
    if isinstance(avatar, DemoClip):
        frames, fit = avatar.frames, "release"
    else:
        frames, fit = read_frames(avatar, settings.fps, settings.num_frames), settings.fit
    frames = fit_avatar(frames[: settings.num_frames or None], settings.width, settings.height, fit)
    return frames, model.pictures.parameters(frames)


def read_frames(avatar, fps: float, num_frames: int = 0) -> Tensor:
    """Frames (F, H, W, C) in 0..1, the first num_frames or, with 0, all: an IMAGE's as they are, a VIDEO's at `fps`
    per second.
    """
    from ..flexiact_core.clips import nearest_frames

    if not hasattr(avatar, "get_components"):
        return memory.ordinary(avatar[: num_frames or None])
    # A second more, for the frame that is nearest to the last moment.
    duration = num_frames / fps + 1 if num_frames else 0
    frames, own_fps = media.from_reference(avatar, fps, fps, duration=duration)
    frames = frames[nearest_frames(len(frames), own_fps, fps)[: num_frames or None]]
    return frames / 255 if not frames.is_floating_point() else frames


def noise_shape(parameters: Tensor) -> tuple[int, ...]:
    """(1, 4, F, h, w) of latents, or of means and log variances (F, 8, h, w)."""
    if parameters.ndim == 5:
        return tuple(parameters.shape)
    return (1, parameters.shape[1] // 2, parameters.shape[0], *parameters.shape[-2:])


def as_latents(model: AMGModel, parameters: Tensor, generator) -> Tensor:
    """Latents (1, 4, F, h, w) of read_avatar()'s second value."""
    from ..flexiact_core.amg.pictures import draw_latents

    return parameters if parameters.ndim == 5 else draw_latents(parameters, model.pictures.scale, generator)


def read_texts(model: AMGModel, settings: Settings, positive, negative) -> tuple[Tensor, Tensor]:
    """The prompt's embedding and that of what to keep away from, each (1, S, D)."""
    unet = model.amg.unet
    if positive is not None:
        text = amg_parts.from_conditioning(positive, "positive", unet)
    else:
        text = amg_parts.encode_prompt(model, settings.prompt, settings.long_prompt)
    if negative is not None:
        return text, amg_parts.from_conditioning(negative, "negative", unet)
    if settings.negative_prompt.strip():
        return text, amg_parts.encode_prompt(model, settings.negative_prompt, settings.long_prompt)
    # At cfg 1 it has no effect, and a model without a text encoder can do without it.
    return text, text if settings.cfg == 1.0 else amg_parts.zero_text(model)


def about(frames: Tensor | None, latents: Tensor, model: AMGModel) -> str:
    """A line on what the model is about to see, with what it was not trained on."""
    from ..flexiact_core.amg.model import TRAINED_FRAMES, TRAINED_SIDE_PX, VAE_SCALE
    from ..flexiact_core.amg.pictures import stands_on_black
    from ..flexiact_core.amg.rehearsal import LABEL

    num_frames, height, width = latents.shape[2:]
    text = f"{num_frames} frames of {width * VAE_SCALE}x{height * VAE_SCALE}"
    if model.amg.name == LABEL:
        return text + ". The weights are random: the result is noise. Choose a trained model in Load AMG."
    if (num_frames, height, width) != (TRAINED_FRAMES, TRAINED_SIDE_PX // VAE_SCALE, TRAINED_SIDE_PX // VAE_SCALE):
        text += f"; AMG learned {TRAINED_FRAMES} of {TRAINED_SIDE_PX}x{TRAINED_SIDE_PX}"
    if frames is not None and not stands_on_black(frames):
        text += "; the avatar does not stand on black, as AMG learned it: make the background #000000"
    return text + "."


def denoise(model: AMGModel, noise: Tensor, avatar: Tensor, texts: tuple[Tensor, Tensor], settings: Settings) -> Tensor:
    """Latents (1, 4, F, h, w), with progress, a preview of the middle frame at each step, and Cancel."""
    from ..flexiact_core.amg.acceleration import Acceleration, accelerate
    from ..flexiact_core.amg.memory import unet_bytes
    from ..flexiact_core.amg.pictures import preview_frame
    from ..flexiact_core.amg.sampling import sample_avatar_video

    shorter = "Shorter: fewer steps or frames, or cfg 1, which halves it and follows the prompt less."
    bar, patcher = progress.SamplingProgress(settings.steps, shorter), sampling_unet(model)

    def on_step(index, clean):
        bar.step(index + 1, preview_frame(clean, clean.shape[2] // 2))

    half = unet_bytes(model.amg.unet, *noise.shape[2:], 1, model.amg.dtype.itemsize)
    batched = settings.cfg != 1.0 and memory.has_room(patcher, 2 * half)
    with memory.on_device(patcher, half * (1 + batched)) as device:
        texts = [text.to(device, model.amg.dtype) for text in texts]
        unet = accelerate(model.amg.unet, Acceleration(settings.attention, settings.compiled), like=texts[0])
        return sample_avatar_video(
            unet, noise.to(device), avatar.to(device), *texts, steps=settings.steps, cfg=settings.cfg,
            batched=batched, on_step=on_step, between=progress.stop_if_cancelled,
        )  # fmt: skip


def sampling_unet(model: AMGModel):
    """The patcher to load for sampling: its weights take in what was learned, and come back for another patcher."""
    from comfy.weight_adapter import LoRAAdapter

    from ..flexiact_core.amg.model import lora_changes

    learned = model.amg.adapter
    if not learned.tensors():
        return model.unet
    if model not in _merged:
        patcher = model.unet.clone()
        patches = {
            f"{memory.HELD_AS}.{layer}.weight": LoRAAdapter(set(), (up, down, None, None, None, None))
            for layer, (down, up) in lora_changes(learned.lora).items()
        }
        patches |= {f"{memory.HELD_AS}.{name}": ("set", (value,)) for name, value in learned.conv_in.items()}
        taken = patcher.add_patches(patches, 1.0)
        assert len(taken) == len(patches)
        _merged[model] = patcher
    return _merged[model]
