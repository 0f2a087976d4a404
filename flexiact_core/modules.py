"""Trees of modules over the same weights, and LoRA layers in them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .errors import FileError

AnyModule = TypeVar("AnyModule", bound=torch.nn.Module)

# How many parts of a long call are done, and of how many. It may raise to stop the call.
OnPart = Callable[[int, int], None]


def share_weights(module: AnyModule) -> AnyModule:
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


def watch_calls(module: AnyModule, root: str, kind: str, on_part: OnPart | None, calls: int = 1) -> AnyModule:
    """A second tree over the same weights that calls on_part before each part of a long call: it may raise to stop.

    Parts are the modules of class `kind` below the child `root` ('' for the module itself), each called `calls` times.
    on_part is given how many parts are done, and of how many. Without it, the module itself.
    """
    if on_part is None:
        return module
    twin, done = share_weights(module), itertools.count()
    parts = [part for part in twin.get_submodule(root).modules() if type(part).__name__ == kind]
    for part in parts:
        part.register_forward_pre_hook(lambda *_: on_part(next(done), len(parts) * calls))
    return twin


def add_lora(
    module: torch.nn.Module,
    name: str,
    targets: Sequence[str],
    *,
    rank: int,
    alpha: float,
    matrices: Mapping[str, Tensor] | None = None,
    ranks: Mapping[str, int] | None = None,
    alphas: Mapping[str, float] | None = None,
) -> None:
    """Adds peft's LoRA layers to a module, in place, under a peft adapter name.

    targets are the ends of the names of the layers that get one; alpha / rank scales what they add. matrices are by
    peft's keys (LAYER.lora_A.weight is down, LAYER.lora_B.weight is up), and are copied. Without them down is drawn
    at random and up is zero, so that nothing is changed yet. ranks and alphas are those of layers that have their own,
    by the end of their names. What was trainable before stays so, and nothing else.
    """
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights=matrices is None,
        rank_pattern=dict(ranks or {}), alpha_pattern=dict(alphas or {}),
    )  # fmt: skip
    # peft freezes whatever is no LoRA matrix, and these parameters may be shared with another tree.
    trainable = {parameter: parameter.requires_grad for parameter in module.parameters()}
    # It draws a start from the random numbers of everybody.
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, module, adapter_name=name, low_cpu_mem_usage=matrices is not None)
    for parameter, flag in trainable.items():
        parameter.requires_grad_(flag)
    if matrices is not None:
        # Cloned, so that nothing done to the layers reaches the matrices given.
        state = {key: value.clone() for key, value in matrices.items()}
        set_peft_model_state_dict(module, state, adapter_name=name, low_cpu_mem_usage=True)


def make_empty(name: str, make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """The module that `make` builds from a config, without memory for its weights.

    Raises FileError, naming the config, if the config is not one of such a module.
    """
    try:
        with torch.device("meta"):
            return make()
    except Exception as error:  # a config may hold anything, and what is made of it may fail anywhere
        raise FileError(
            f"{name}/config.json: not the settings of such a model ({type(error).__name__}). Download the file again."
        ) from error
