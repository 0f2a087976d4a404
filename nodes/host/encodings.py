"""Prompts and pictures as the base reads them, the last few kept, and what names and seeds them."""

from __future__ import annotations

import hashlib

from ..sockets import BaseModel
from . import memory, progress


def native_size(model: BaseModel) -> tuple[int, int, int]:
    """Width and height in pixels and number of frames that the base was trained on."""
    from ...flexiact_core.cogvideox.model import native_size

    return native_size(model.base)


def encode_prompt(model: BaseModel, prompt: str):
    """Embeddings of a prompt, from the last few where they are there; says so if the prompt is cut."""
    from ...flexiact_core.cogvideox.model import count_tokens, encode_prompt

    length = model.base.transformer.config.max_text_seq_length
    num_tokens = count_tokens(model.base.tokenizer, prompt)
    if num_tokens > length:
        progress.say(f"The prompt has {num_tokens} tokens; the model reads the first {length}, the rest is left out.")

    def compute():
        width = model.base.text_encoder.config.d_model
        with memory.on_device(model.text_encoder, 64 * length * width) as device:
            return encode_prompt(model.base.text_encoder, model.base.tokenizer, prompt, length, device).cpu()

    return model.encodings.get(("prompt", prompt), compute)


def encode_image(model: BaseModel, image):
    """The VAE's posterior of a fitted picture (1, H, W, 3), from the last few where it is there."""
    from ...flexiact_core.cogvideox.model import encode_pixels
    from ...flexiact_core.video import to_model_pixels

    digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()

    def compute():
        with memory.on_device(model.vae, memory.encode_bytes(model, 1, *image.shape[1:3])) as device:
            return encode_pixels(model.base.vae, to_model_pixels(image), device)

    return model.encodings.get(("image", tuple(image.shape), digest), compute)


def tensor_digest(*tensors) -> str:
    """A short name for the contents of tensors."""
    contents = hashlib.sha256()
    for tensor in tensors:
        contents.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return contents.hexdigest()


def generator(seed: int):
    """A random generator on the CPU, the same on any machine."""
    import torch

    return torch.Generator().manual_seed(seed)
