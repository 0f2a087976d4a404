"""Words and pictures for AMG: by the model's own text encoder and VAE, or by ComfyUI's CLIP and VAE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .host import encodings, memory, progress
from .sockets import AMGModel

if TYPE_CHECKING:
    from torch import Tensor

# ComfyUI's VAE speaks of latents as Stable Diffusion's UNet does not: before this factor.
SD_SCALE = 0.18215


def to_amg_model(amg, clip=None, vae=None) -> AMGModel:
    """The socket value of a loaded AMG; a connected CLIP or VAE goes before the model's own.

    Raises FileError if CLIP is of another width than the UNet reads, or VAE is of another kind.
    """
    import comfy.model_management as devices

    unet = memory.to_patcher(amg.unet, devices.get_torch_device(), devices.unet_offload_device())
    words = OwnWords(amg) if clip is None and amg.text_encoder is not None else None
    pictures = OwnPictures(amg.vae) if vae is None and amg.vae is not None else None
    if clip is not None:
        words = HostWords(clip, amg.unet)
    if vae is not None:
        pictures = HostPictures(vae)
    return AMGModel(amg, unet, words, pictures)


class OwnWords:
    """Prompts by the model's own text encoder; the last few are kept."""

    def __init__(self, amg):
        import comfy.model_management as devices

        self.encoder, self.tokenizer, self.recent = amg.text_encoder, amg.tokenizer, encodings.Recent()
        self.patcher = memory.to_patcher(
            amg.text_encoder, devices.text_encoder_device(), devices.text_encoder_offload_device()
        )

    def digest(self) -> str:
        """A short name for its weights."""
        from ..flexiact_core.digests import module_digest

        return module_digest(self.encoder)

    def count(self, prompt: str) -> int:
        """How many tokens a prompt has."""
        from ..flexiact_core.amg.text import count_tokens

        return count_tokens(self.tokenizer, prompt)

    def encode(self, prompt: str, long: str) -> Tensor:
        """Embeddings (1, S, D) of a prompt on the CPU; `long` is cut or chunks."""
        from ..flexiact_core.amg.text import encode_prompt

        def compute():
            config = self.encoder.config
            with memory.on_device(self.patcher, 64 * config.max_position_embeddings * config.hidden_size) as device:
                on_part = progress.LongCall("Reading the prompt")
                return encode_prompt(self.encoder, self.tokenizer, prompt, device, long, on_part).float().cpu()

        return self.recent.get((prompt, long), compute)


class HostWords:
    """Prompts by ComfyUI's CLIP, without its signs for weights: the release has none."""

    def __init__(self, clip, unet):
        from ..flexiact_core.amg.loading import check_text_width

        self.clip, self.recent = clip, encodings.Recent()
        check_text_width("clip", self.encode("", "cut").shape[-1], unet)

    def digest(self) -> str:
        """A short name for its weights."""
        from ..flexiact_core.digests import module_digest

        return module_digest(self.clip.cond_stage_model)

    def count(self, prompt: str) -> int:
        """How many tokens a prompt has."""
        pieces = next(iter(self._tokenize(prompt).values()))
        return sum(len([token for token, _ in piece if token]) - 2 for piece in pieces)

    def encode(self, prompt: str, long: str) -> Tensor:
        """Embeddings (1, S, D) of a prompt on the CPU; `long` is cut or chunks."""

        def compute():
            tokens = self._tokenize(prompt)
            if long == "cut":
                tokens = {name: pieces[:1] for name, pieces in tokens.items()}
            with memory.normal_tensors():
                return self.clip.encode_from_tokens(tokens).float().cpu()

        return self.recent.get((prompt, long), compute)

    def _tokenize(self, prompt: str) -> dict:
        return self.clip.tokenize(prompt, disable_weights=True)


class OwnPictures:
    """Frames by the model's own VAE; the last few clips are kept."""

    def __init__(self, vae):
        import comfy.model_management as devices

        self.vae, self.recent = vae, encodings.Recent(4)
        self.patcher = memory.to_patcher(vae, devices.vae_device(), devices.vae_offload_device())
        self.scale = vae.config.scaling_factor

    def digest(self) -> str:
        """A short name for its weights."""
        from ..flexiact_core.digests import module_digest

        return module_digest(self.vae)

    def parameters(self, frames: Tensor) -> Tensor:
        """Means and log variances (F, 8, h, w) of frames (F, H, W, 3) in 0..1, on the CPU."""
        from ..flexiact_core.amg.memory import encode_bytes
        from ..flexiact_core.amg.pictures import encode_frames

        def compute():
            with memory.on_device(self.patcher, encode_bytes(self.vae, *frames.shape[:3])) as device:
                return encode_frames(self.vae, frames, device, progress.LongCall("Encoding the avatar"))

        return self.recent.get(encodings.tensor_digest(frames), compute)

    def decode(self, latents: Tensor) -> Tensor:
        """Frames (F, H, W, 3) in 0..1, on the CPU, of latents (1, 4, F, h, w)."""
        from ..flexiact_core.amg.memory import decode_bytes
        from ..flexiact_core.amg.model import VAE_SCALE
        from ..flexiact_core.amg.pictures import decode_latents

        num_frames, height, width = latents.shape[2:]
        needed = decode_bytes(self.vae, num_frames, height * VAE_SCALE, width * VAE_SCALE)
        with memory.on_device(self.patcher, needed) as device:
            return decode_latents(self.vae, latents, device, progress.LongCall("Decoding the frames"))


class HostPictures:
    """Frames by ComfyUI's VAE, which gives the middle of what it says of a frame: nothing is drawn."""

    scale = SD_SCALE

    def __init__(self, vae):
        from ..flexiact_core.amg.model import LATENT_CHANNELS, VAE_SCALE
        from ..flexiact_core.amg.parts import NEEDED
        from ..flexiact_core.errors import FileError

        if vae.latent_channels != LATENT_CHANNELS or vae.downscale_ratio != VAE_SCALE:
            raise FileError(f"vae: {vae.latent_channels} latent channels found, {LATENT_CHANNELS} needed. {NEEDED}")
        self.vae, self.recent = vae, encodings.Recent(4)

    def digest(self) -> str:
        """A short name for its weights."""
        from ..flexiact_core.digests import module_digest

        return module_digest(self.vae.first_stage_model)

    def parameters(self, frames: Tensor) -> Tensor:
        """Means and log variances (F, 8, h, w) of frames (F, H, W, 3) in 0..1, on the CPU; the variances are 0."""
        import torch

        def compute():
            with memory.normal_tensors():
                mean = self.vae.encode(frames).float().cpu()
            return torch.cat([mean, torch.full_like(mean, -torch.inf)], dim=1)

        return self.recent.get(encodings.tensor_digest(frames), compute)

    def decode(self, latents: Tensor) -> Tensor:
        """Frames (F, H, W, 3) in 0..1, on the CPU, of latents (1, 4, F, h, w)."""
        from ..flexiact_core.amg.pictures import clip_to_frames

        with memory.normal_tensors():
            return self.vae.decode(clip_to_frames(latents).cpu() / self.scale).float().cpu()


def encode_prompt(model: AMGModel, prompt: str, long: str) -> Tensor:
    """Embeddings (1, S, D) of a prompt; says what is left out of a long one. Raises FileError without an encoder."""
    from ..flexiact_core.amg.parts import NEEDED
    from ..flexiact_core.errors import FileError

    if model.words is None:
        raise FileError(
            "text encoder: this model has none. Choose 'components' in Load AMG, connect a CLIP to it, or connect "
            f"CONDITIONING to the sampler. {NEEDED}"
        )
    count = model.words.count(prompt)
    if long == "cut" and count > 75:
        progress.say(f"The prompt has {count} tokens; the first 75 are read, as in the release. chunks reads all.")
    return model.words.encode(prompt, long)


def zero_text(model: AMGModel) -> Tensor:
    """The embedding of no words: the file's, or computed."""
    return encode_prompt(model, "", "cut") if model.amg.zero_text is None else model.amg.zero_text


def from_conditioning(conditioning, name: str, unet) -> Tensor:
    """The embedding (1, S, D) of a CONDITIONING value. Raises FileError if the UNet reads another width."""
    from ..flexiact_core.amg.loading import check_text_width

    text = memory.ordinary(conditioning[0][0]).float().cpu()[:1]
    check_text_width(name, text.shape[-1], unet)
    return text


def compute_dtype(name: str):
    """The torch dtype of a choice; fp16, which a CPU lacks many operations for, is fp32 there, and that is said."""
    import comfy.model_management as devices
    import torch

    chosen = memory.compute_dtype(name)
    if chosen == torch.float16 and devices.is_device_cpu(devices.get_torch_device()):
        progress.say("A CPU does not compute well in fp16: AMG is loaded in fp32.")
        return torch.float32
    return chosen


def tokenizer_folder() -> Path:
    """ComfyUI's own files of CLIP's tokenizer, for checkpoints that bring none."""
    import comfy.sd1_clip

    return Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"
