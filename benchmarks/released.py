"""The released formulation of FlexiAct, written anew from its description, as the side to compare with.

Motion tokens are full tokens, in query, key and value, on every layer and step; while the bias is on, a dense mask
over all pairs of tokens carries it, made anew in every layer's call; the LoRA runs as separate matrix products;
training encodes the clip, its first frame and the caption again on each step, and keeps the LoRA in the forward at
weight 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from flexiact_core.cogvideox.loss import Batch, denoising_loss
from flexiact_core.cogvideox.model import encode_pixels, sample_posterior
from flexiact_core.flexiact.refadapter import ALPHA_PER_RANK, PROJECTIONS, RefAdapter
from flexiact_core.modules import share_weights
from flexiact_core.training import DEFAULT_RECIPE


class ReleasedAttention:
    """Attention of one layer over [text, motion, video], every token a full one."""

    def __init__(self, tokens: Tensor, matrices: dict[str, tuple[Tensor, Tensor]], lora_weight: float):
        self.tokens, self.matrices, self.factor = tokens, matrices, lora_weight * ALPHA_PER_RANK

    def __call__(
        self, attn, hidden_states, encoder_hidden_states, attention_mask=None, image_rotary_emb=None, bias=None
    ):
        from diffusers.models.embeddings import apply_rotary_emb

        num_text = encoder_hidden_states.shape[1]
        first_video = num_text + self.tokens.shape[0]
        motion = self.tokens.expand(len(hidden_states), -1, -1).to(hidden_states.dtype)
        x = torch.cat([encoder_hidden_states, motion, hidden_states], dim=1)
        query, key, value = (
            self._project(x, layer, name).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, name in ((attn.to_q, "q"), (attn.to_k, "k"), (attn.to_v, "v"))
        )
        query, key = attn.norm_q(query), attn.norm_k(key)
        query, key = (
            torch.cat([y[:, :, :first_video], apply_rotary_emb(y[:, :, first_video:], image_rotary_emb)], dim=2)
            for y in (query, key)
        )
        mask = None
        if bias is not None:
            mask = dense_mask(num_text, len(self.tokens), hidden_states.shape[1], bias, query)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        y = self._project(y.transpose(1, 2).flatten(2), attn.to_out[0], "proj")
        return y[:, first_video:], y[:, :num_text]

    def _project(self, x: Tensor, layer, name: str) -> Tensor:
        down, up = self.matrices[name]
        return layer(x) + self.factor * F.linear(F.linear(x, down), up)


def with_released_attention(transformer, tokens: Tensor, adapter: RefAdapter, lora_weight: float):
    """A transformer over the same weights in the released formulation; tokens are (layers, M, width)."""
    twin = share_weights(transformer)
    key = "transformer_blocks.{}.attn1.processor.lora_{}.{}.weight"
    for index, block in enumerate(twin.transformer_blocks):
        matrices = {
            name: tuple(adapter.tensors[key.format(index, name, side)] for side in ("down", "up"))
            for name in PROJECTIONS
        }
        block.attn1.set_processor(ReleasedAttention(tokens[index], matrices, lora_weight))
    return twin


def dense_mask(num_text: int, num_motion: int, num_video: int, bias: float, like: Tensor) -> Tensor:
    """The mask (N, N) over [text, motion, video] that adds the bias to (video query, motion key)."""
    total = num_text + num_motion + num_video
    mask = torch.zeros(total, total, device=like.device, dtype=like.dtype)
    mask[num_text + num_motion :, num_text : num_text + num_motion] = bias
    return mask


class ReleasedTraining:
    """FAE training as released; step() does one."""

    def __init__(self, transformer, vae, text_encoder, scheduler, adapter: RefAdapter, tokens: Tensor, device):
        self.vae, self.text_encoder, self.scheduler, self.device = vae, text_encoder, scheduler, device
        self.tokens = torch.nn.Parameter(tokens.float())
        self.learner = with_released_attention(transformer, self.tokens, adapter, lora_weight=0.0)
        self.learner.enable_gradient_checkpointing()
        recipe = DEFAULT_RECIPE
        self.optimizer = torch.optim.AdamW([self.tokens], lr=1e-3, betas=recipe.betas, weight_decay=recipe.weight_decay)
        self.generator = torch.Generator().manual_seed(0)

    def step(self, pixels: Tensor, token_ids: Tensor) -> None:
        """One step on a clip (1, 3, T, H, W) in -1..1 and the caption's token ids (1, S)."""
        scaling = self.vae.config.scaling_factor
        video, image = (
            sample_posterior(encode_pixels(self.vae, x, self.device), scaling, self.generator).to(self.device)
            for x in (pixels, pixels[:, :, :1])
        )
        with torch.no_grad():
            prompt_embeds = self.text_encoder(token_ids)[0]
        with torch.enable_grad():
            loss = denoising_loss(
                self.learner,
                self.scheduler,
                Batch(
                    video,
                    image,
                    torch.randn(video.shape, generator=self.generator).to(self.device),
                    torch.randint(1000, (1,), generator=self.generator).to(self.device),
                    prompt_embeds,
                    debias_frames=torch.zeros(1, dtype=torch.long, device=self.device),
                ),
            )
            loss.backward()
        torch.nn.utils.clip_grad_norm_([self.tokens], DEFAULT_RECIPE.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
