"""Prompts and pictures as the base reads them, the last few kept, and what names and seeds them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..sockets import BaseModel
from . import memory, progress

if TYPE_CHECKING:
    from torch.nn import Module


class Recent:
    """The last few results of a computation by key, so that a run that changes only the seed does not repeat it."""

    def __init__(self, size: int = 8):
        self.size = size
        self.results: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result under `key`, computed if it is not among the last few."""
        if key not in self.results:
            self.results[key] = compute()
        self.results.move_to_end(key)
        while len(self.results) > self.size:
            self.results.popitem(last=False)
        return self.results[key]


# By the module that made them, and so shared by all models with that module: adapters do not matter here.
_kept: WeakKeyDictionary[Module, Recent] = WeakKeyDictionary()


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
            on_part = progress.LongCall("Reading the prompt")
            return encode_prompt(model.base.text_encoder, model.base.tokenizer, prompt, length, device, on_part).cpu()

    return _kept.setdefault(model.base.text_encoder, Recent()).get((prompt, length), compute)


def encode_image(model: BaseModel, image):
    """The VAE's posterior of a fitted picture (1, H, W, 3), from the last few where it is there."""
    return encode_video(model, image)


def encode_video(model: BaseModel, frames):
    """The VAE's posterior of frames (T, H, W, 3) in 0..1, T = 4k+1, from the last few where it is there."""
    from ...flexiact_core.cogvideox.memory import encode_bytes
    from ...flexiact_core.cogvideox.model import encode_pixels
    from ...flexiact_core.video import to_model_pixels

    digest = hashlib.sha256(frames.contiguous().numpy()).hexdigest()

    def compute():
        with memory.on_device(model.vae, encode_bytes(model.base, *frames.shape[:3])) as device:
            on_part = progress.LongCall("Encoding a picture" if len(frames) == 1 else "Encoding a video")
            return encode_pixels(model.base.vae, to_model_pixels(frames), device, on_part)

    return _kept.setdefault(model.base.vae, Recent()).get((tuple(frames.shape), digest), compute)


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
