"""The pose norms of a DynamiCtrl base: layers that it has beside CogVideoX 1.5's, known by their keys."""

from __future__ import annotations

from collections.abc import Collection

import torch

NAME = "control_norm1"


def has_pose_norms(keys: Collection[str]) -> bool:
    """Whether any of a transformer's keys is of a pose norm."""
    return any(f".{NAME}." in key for key in keys)


def add_pose_norms(transformer) -> None:
    """Gives every block of a transformer that is being built a pose norm, of no value yet, under its released keys.

    A pose norm is a linear layer, from the time embedding to three times the width, and a layer norm. The config says
    from then on that the base has them: it is of another family.
    """
    config = transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    for block in transformer.transformer_blocks:
        linear = type(block.norm1.linear)(config.time_embed_dim, 3 * width, device="meta")
        norm = type(block.norm1.norm)(width, eps=config.norm_eps, device="meta")
        block.add_module(NAME, torch.nn.ModuleDict({"linear": linear, "norm": norm}))
    transformer.register_to_config(pose_norms=True)
