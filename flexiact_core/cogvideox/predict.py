"""The one call of the transformer: sampling, the training loss and all else go through it.

Shape letters: B batch, L latent frames, C channels, h w latent height and width, S text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .family import family_of
from .model import rotary_positions

if TYPE_CHECKING:
    from diffusers import CogVideoXTransformer3DModel

Predict = Callable[..., Tensor]


def make_predict(
    transformer: CogVideoXTransformer3DModel,
    shape: Sequence[int],
    device: torch.device,
    call: Callable[..., Tensor] | None = None,
) -> Predict:
    """A function of noisy latents that gives the transformer's velocity, for latents of one shape (B, L, C, h, w).

    It takes `noisy` and `condition`, both (B, L, C, h, w), `prompt_embeds` (B, S, D), in whose dtype the transformer
    computes, `timesteps` (B,) in 0..999, and perhaps `attention_kwargs`, the attention processors' named arguments;
    it returns (B, L, C, h, w) in float32. L fills whole patches, as Family.count_latent_frames() counts.
    `call` stands in for the transformer's forward; accelerate() gives such a function.
    Source: CogVideoX image-to-video, diffusers' CogVideoXImageToVideoPipeline.
    """
    config = transformer.config
    rotary = rotary_positions(config, shape[1], *shape[-2:])
    always: dict[str, Any] = {
        "image_rotary_emb": None if rotary is None else tuple(table.to(device) for table in rotary)
    }
    ofs = family_of(config).ofs
    if ofs is not None:
        always["ofs"] = torch.full((1,), ofs, device=device)
    call = call or (lambda **inputs: transformer(**inputs, return_dict=False)[0])

    def predict(
        noisy: Tensor,
        condition: Tensor,
        prompt_embeds: Tensor,
        timesteps: Tensor,
        attention_kwargs: Mapping[str, Any] | None = None,
    ) -> Tensor:
        return call(
            hidden_states=torch.cat([noisy, condition], dim=2).to(prompt_embeds.dtype),
            encoder_hidden_states=prompt_embeds,
            timestep=timesteps,
            attention_kwargs=None if attention_kwargs is None else dict(attention_kwargs),
            **always,
        ).float()

    return predict
