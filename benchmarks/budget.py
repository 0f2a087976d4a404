"""What CogVideoX-5B-I2V at 49x480x720 needs in memory, item by item, computed without a card."""

from __future__ import annotations

from contextlib import contextmanager

import torch
import torch.nn.functional as F

from benchmarks.measure import peak_bytes
from benchmarks.sides import META, Bench, training_sides
from benchmarks.sizes import FULL, Size, make_text_encoder, make_transformer, make_vae
from flexiact_core.cogvideox.acceleration import Acceleration
from flexiact_core.cogvideox.model import decode_latents

GIB = 2**30


def table() -> list[str]:
    """Lines of the table; sizes in GiB, bf16. Activations are tensors alive at once, kernels' workspaces left out."""
    items = [*_weights(), *_step_caches(), *activations(FULL).items()]
    return ["| at full size, bf16 | GiB |", "|---|---|", *(f"| {name} | {size / GIB:,.2f} |" for name, size in items)]


def _weights() -> list[tuple[str, int]]:
    with META:
        parts = {
            "transformer": make_transformer(FULL, META, torch.bfloat16),
            "text encoder": make_text_encoder(FULL, META, torch.bfloat16),
            "VAE": make_vae(FULL, META, torch.bfloat16),
        }
    sizes = {name: sum(p.numel() * p.itemsize for p in part.parameters()) for name, part in parts.items()}
    tokens = FULL.layers * FULL.text_tokens * FULL.width
    adapter = FULL.layers * 4 * 2 * FULL.rank * FULL.width
    return [
        *((f"weights of the {name}", size) for name, size in sizes.items()),
        ("keys and values of one FAE, all layers", 2 * 2 * tokens),
        ("RefAdapter unmerged (merged: nothing on the card)", 2 * adapter),
        ("FAE in training: tokens, gradient, two moments, float32", 4 * 4 * tokens),
    ]


def _step_caches() -> list[tuple[str, int]]:
    values = 2 * (FULL.text_tokens + FULL.video_tokens) * FULL.width
    return [(f"step cache {name}", Acceleration(name).held_bytes(values, 2)) for name in ("first_block", "taylor")]


def activations(size: Size) -> dict[str, int]:
    """Bytes of the tensors alive at once in each piece of work, in bf16."""
    bench = Bench(size, META, torch.bfloat16)
    vae = make_vae(size, META, torch.bfloat16)
    height, width = size.patches[0] * 2, size.patches[1] * 2
    pixels = torch.empty(1, 3, size.frames, *size.pixels, device=META, dtype=torch.bfloat16)
    latents = torch.empty(1, size.latent_frames, 16, height, width, device=META, dtype=torch.bfloat16)
    steps, trainings = bench.forwards(), training_sides(size)
    works = {
        **{f"a guided step, {side}": steps[side] for side in ("plain diffusers", "ours, bias on", "released, bias on")},
        f"the tiled decode, {size.frames} frames": lambda: decode_latents(vae, latents, META),
        "encoding 1 frame": lambda: vae.encode(pixels[:, :, :1]),
        f"encoding {size.frames} frames": lambda: vae.encode(pixels),
    }
    with _fused_attention():
        with torch.no_grad():
            taken = {name: peak_bytes(work, META) for name, work in works.items()}
        for side, work in trainings.items():
            if side != "released":
                taken[f"a training step, {side}"] = peak_bytes(work, META)
    return {f"activations of {name}": size_bytes for name, size_bytes in taken.items()}


class _FusedAttention(torch.autograd.Function):
    """Holds what a fused kernel holds; computes nothing."""

    @staticmethod
    def forward(ctx, query, key, value):
        result = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, result)
        return result

    @staticmethod
    def backward(ctx, gradient):
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


@contextmanager
def _fused_attention():
    # On the meta device torch would count the N x N matrix that no fused kernel keeps.
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda query, key, value, **_: _FusedAttention.apply(query, key, value)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original
