"""An action on a MODEL: what acts while it samples, in wrappers on a clone, and inside the user's own attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..flexiact_core.flexiact.bias import MotionBias
    from .sockets import WeightedFAEs

NAME = "flexiact_action"


def with_action(patcher, faes: WeightedFAEs, bias: MotionBias):
    """A clone of a MODEL that performs the actions; the one given is left as it is.

    Raises FileError if an action is of another base. An action that the MODEL has already is replaced by this one.
    """
    from comfy.patcher_extension import WrappersMP

    check_fits(patcher, faes)
    acting, action = patcher.clone(), ActionOnModel(faes, bias)
    acting.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, NAME)
    acting.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, NAME)
    acting.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, NAME, action.outer_sample)
    acting.add_wrapper_with_key(WrappersMP.APPLY_MODEL, NAME, action.apply_model)
    return acting


def check_fits(patcher, faes: WeightedFAEs) -> None:
    """Passes if every action fits the MODEL, which is one that can take actions. Raises FileError otherwise."""
    from types import SimpleNamespace

    from ..flexiact_core.flexiact.fae import check_fae
    from .host import native

    native.check_kind(patcher)
    config = _Config(native.describe(patcher.model.diffusion_model))
    for fae, _ in faes:
        check_fae(fae, SimpleNamespace(config=config))


class ActionOnModel:
    """Keys and values of actions, projected once a run by the layers' own weights, and their part of each step."""

    def __init__(self, faes: WeightedFAEs, bias: MotionBias):
        self.faes, self.bias = faes, bias
        self.projected: dict[Any, Any] = {}

    def outer_sample(self, executor, *args, **kwargs):
        """Around a whole run: what was projected is of its weights alone."""
        self.projected.clear()
        try:
            return executor(*args, **kwargs)
        finally:
            self.projected.clear()

    def apply_model(
        self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kw
    ):
        """Around each call of the model, outside what may be compiled."""
        from ..flexiact_core.flexiact.layers import CountedMotion

        model = executor.class_obj
        options = dict(transformer_options or {})
        motion = self._motion(model, x.device)
        if motion is None:
            return executor(x, t, c_concat, c_crossattn, control, options, **kw)
        timestep = float(model.model_sampling.timestep(t.flatten()[:1])[0])
        counted = CountedMotion(motion, c_crossattn.shape[1], self.bias.at(timestep))
        options["optimized_attention_override"] = _inside(counted, options.get("optimized_attention_override"))
        out = executor(x, t, c_concat, c_crossattn, control, options, **kw)
        counted.check()
        return out

    def _motion(self, model, device):
        from ..flexiact_core.flexiact.motion import project_tokens

        hooks = getattr(model.current_patcher, "current_hooks", None)
        # Hooks change weights within a run.
        if device in self.projected and not hooks:
            return self.projected[device]
        dtype = model.get_dtype_inference()
        actions = [(fae.tokens.to(device, dtype), strength) for fae, strength in self.faes]
        motion = project_tokens((_keys_and_values(block) for block in model.diffusion_model.blocks), actions)
        self.projected[device] = motion
        return motion


def _keys_and_values(block):
    from ..flexiact_core.cogvideox.processor import split_heads
    from ..flexiact_core.flexiact.motion import KeyValueOf

    return KeyValueOf(
        lambda tokens: block.norm_k(split_heads(block.k(tokens), block.num_heads)),
        lambda tokens: split_heads(block.v(tokens), block.num_heads),
    )


def _inside(counted, before: Callable | None) -> Callable:
    """The override of a step; an override that stood before, of another node, attends inside it."""
    import torch
    from einops import rearrange

    # Another layer and another bias at each call: a compiler would compile each anew.
    @torch.compiler.disable
    def override(attention, q, k, v, heads, *args, **kwargs):
        split = [rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k, v)]
        if before is None and args == () and kwargs.get("mask") is None and _is_plain(attention):
            attended = counted.attend(*split)
        else:
            attended = counted.attend(*split, by=_by(attention, before, heads, args, kwargs))
        return rearrange(attended, "b h n d -> b n (h d)")

    return override


def _is_plain(attention) -> bool:
    """Whether ComfyUI attends by torch's own kernels, which ours are too; not where it was told to use others."""
    return attention.__name__ in ("attention_pytorch", "attention_sub_quad", "attention_split", "attention_basic")


def _by(attention, before: Callable | None, heads: int, args, kwargs) -> Callable:
    from einops import rearrange

    def attend(query, key, value, key_bias):
        merged = [rearrange(x, "b h n d -> b n (h d)") for x in (query, key, value)]
        given = dict(kwargs)
        if key_bias is not None:
            given["mask"] = key_bias.to(query.dtype).expand(1, 1, query.shape[2], -1)
        call = attention if before is None else lambda *a, **k: before(attention, *a, **k)
        return rearrange(call(*merged, heads, *args, **given), "b n (h d) -> b h n d", h=heads)

    return attend


class _Config(dict):
    """A table that is read by attribute as well, as configs of diffusers are."""

    __getattr__ = dict.__getitem__
