"""Trees of modules over the same weights."""

from __future__ import annotations

import torch


def share_weights(module: torch.nn.Module) -> torch.nn.Module:
    """A second tree of modules over the same weights: containers are new, leaves and parameters are shared.

    What is attached to the new tree (processors, adapters, hooks on containers) never reaches the old one.
    """
    children = {name: child for name, child in module._modules.items() if child is not None}
    if not children:
        return module
    twin = module.__class__.__new__(module.__class__)
    twin.__dict__ = {
        name: value.copy() if name.endswith("_hooks") or name.endswith("_hooks_with_kwargs") else value
        for name, value in module.__dict__.items()
        if name != "_diffusers_hook"  # diffusers' registry of hooks knows the one module that it hooks
    }
    twin._modules = {name: None if child is None else share_weights(child) for name, child in module._modules.items()}
    return twin
