"""What is asked for, against what is taken."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import torch

from benchmarks.budget import activations
from benchmarks.sizes import FULL, make_transformer, make_vae
from flexiact_core.cogvideox.family import COGVIDEOX_1_0
from flexiact_core.cogvideox.memory import decode_bytes, encode_bytes, training_bytes, transformer_bytes


def test_the_room_asked_for_is_a_little_more_than_is_taken():
    """Less runs out of memory; much more moves weights off the card for nothing. Counted at the full width and video,
    computed on no device."""
    size, meta = replace(FULL, layers=4), torch.device("meta")
    parts = dict(transformer=make_transformer(size, meta, torch.bfloat16), vae=make_vae(size, meta, torch.bfloat16))
    base = SimpleNamespace(dtype=torch.bfloat16, family=COGVIDEOX_1_0, **parts)
    config = base.transformer.config
    values = config.num_layers * config.num_attention_heads * config.attention_head_dim
    shape = (1, 13, 16, 60, 90)
    tokens, checkpointed_tokens = training_bytes(base, shape, 1, values * config.max_text_seq_length)
    adapter, checkpointed_adapter = training_bytes(base, shape, 1, values * 4 * 2 * size.rank, adapters=True)
    asked = {
        "a guided step, ours, bias on": transformer_bytes(base, 13, 60, 90, batch=2),
        "the tiled decode, 49 frames": decode_bytes(base, 49, 480, 720),
        "encoding 1 frame": encode_bytes(base, 1, 480, 720),
        "encoding 49 frames": encode_bytes(base, 49, 480, 720),
        "a training step, ours": checkpointed_tokens,
        "a training step, ours, without checkpointing": tokens,
        "a training step, RefAdapter": checkpointed_adapter,
        "a training step, RefAdapter, without checkpointing": adapter,
    }
    taken = activations(size)
    shares = {work: asked[work] / taken[f"activations of {work}"] for work in asked}
    assert all(1 < share < 1.6 for share in shares.values()), shares
