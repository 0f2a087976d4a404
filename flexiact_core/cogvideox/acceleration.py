"""Ways to spend less time on a denoising run: reused steps, compiled blocks, a chosen attention kernel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import SettingError
from ..kernels import (
    TORCH_KERNELS,
    AttentionKernel,
    check_sage,
    check_torch_kernel,
    sage_attention,
    torch_kernel,
)
from ..modules import share_weights

StepCache = Literal["off", "first_block", "taylor"]


# Full steps before TaylorSeer predicts any: it extrapolates from the difference of two.
TAYLOR_WARM_UP = 3


@dataclass(frozen=True)
class Acceleration:
    """How a denoising run saves time; the default computes every step in full.

    step_cache: "off" is exact. The others reuse earlier steps and change the result, through diffusers' hooks:
    "first_block" (FirstBlockCache) skips the other blocks of a step in which the first block's change differs from
    the last full step's by less than `threshold`, as a fraction; "taylor" (TaylorSeer) computes one of `interval`
    steps in full and extrapolates between them what all blocks together add.
    compiled: torch.compile of the repeated block; results differ in rounding only.
    attention: the kernel; "auto" is torch's own choice, and torch's kernels differ in rounding only. "sage"
    (SageAttention 2, where installed) compares queries and keys in 8 bits, and so changes the result a little.
    Raises SettingError if a value is out of range.
    """

    step_cache: StepCache = "off"
    threshold: float = 0.1
    interval: int = 3
    compiled: bool = False
    attention: AttentionKernel = "auto"

    def __post_init__(self):
        if self.step_cache not in ("off", "first_block", "taylor"):
            raise SettingError(f"step_cache '{self.step_cache}': choose off, first_block or taylor.")
        if self.attention not in ("auto", *TORCH_KERNELS, "sage"):
            raise SettingError(f"attention '{self.attention}': choose auto, {', '.join(TORCH_KERNELS)} or sage.")
        if not 0 <= self.threshold < 1:
            raise SettingError(f"threshold {self.threshold}: at least 0 (no step reused) and below 1 are possible.")
        if self.interval < 1:
            raise SettingError(f"interval {self.interval}: at least 1 (every step in full) is needed.")

    def held_bytes(self, num_values: int, itemsize: int) -> int:
        """What a step cache holds beside a forward, for hidden states of so many values of so many bytes each."""
        if self.step_cache == "first_block":
            # What the first block gave, what it changed, and what all the others changed.
            return 3 * num_values * itemsize
        # Two factors in float32; a step in full holds the next two before they take their place.
        return 4 * num_values * 4 if self.step_cache == "taylor" else 0


EXACT = Acceleration()


def accelerate(transformer, acceleration: Acceleration, like: Tensor) -> Callable[..., Tensor]:
    """A function of the transformer's named inputs that gives its output, for one denoising step after the other.

    It remembers earlier steps where a step cache asks for it, so it serves one run. What is attached for it sits on a
    second tree of modules over the same weights; the transformer given is left as it is. `like` is a tensor on the
    device and in the dtype of the run. A kernel that is not one of torch's reaches the attention processors as their
    named argument `kernel`: it gives attention and the logarithm of each row's softmax sum, as sage_attention().
    Raises SettingError if the device has no such attention kernel, or diffusers no such step cache; the function
    does if torch cannot compile.
    """
    kernel = sage_attention if acceleration.attention == "sage" else None
    check = check_torch_kernel if kernel is None else check_sage
    check(acceleration.attention, transformer.config.attention_head_dim, like)
    cached = acceleration.step_cache != "off"
    if acceleration.compiled or cached:
        transformer = share_weights(transformer)
    if acceleration.compiled:
        # Block by block, as they are all alike: one is compiled and serves for every layer.
        for block in transformer.transformer_blocks:
            block.forward = torch.compile(block.forward)
    if cached:
        _attach_step_cache(transformer, acceleration)

    def predict(**inputs) -> Tensor:
        if kernel is not None:
            inputs["attention_kwargs"] = {**(inputs.get("attention_kwargs") or {}), "kernel": kernel}
        with torch_kernel(acceleration.attention), transformer.cache_context("run") if cached else nullcontext():
            try:
                return transformer(**inputs, return_dict=False)[0]
            except torch._dynamo.exc.BackendCompilerFailed as error:
                reason = " ".join(str(error).split())[:200]
                raise SettingError(f"compiled: torch cannot compile here ({reason}). Turn compiled off.") from error

    return predict


def _attach_step_cache(transformer, acceleration: Acceleration) -> None:
    try:
        from diffusers.hooks import FirstBlockCacheConfig, TaylorSeerCacheConfig
    except ImportError:
        raise SettingError(
            f"step_cache '{acceleration.step_cache}' needs diffusers 0.36 or newer. Update it, or choose off."
        ) from None
    if acceleration.step_cache == "first_block":
        if len(transformer.transformer_blocks) == 1:
            raise SettingError("step_cache 'first_block': this base has one block, so there is nothing to skip.")
        config = FirstBlockCacheConfig(threshold=acceleration.threshold)
    else:
        # On all blocks as one module. diffusers' own choice of layers finds none in CogVideoX, its "lite" form would
        # hook the final projection, which is shared with the base, and all layers would hold several GB of outputs.
        transformer.transformer_blocks = torch.nn.ModuleList([_BlockStack(transformer.transformer_blocks)])
        config = TaylorSeerCacheConfig(
            cache_interval=acceleration.interval,
            disable_cache_before_step=TAYLOR_WARM_UP,
            max_order=1,
            taylor_factors_dtype=torch.float32,
            cache_identifiers=[r"transformer_blocks\.0\.change"],
        )
    transformer.enable_cache(config)


class _BlockStack(torch.nn.Module):
    """All blocks as one, which adds to its input what they change, so that a step cache can stand in for the change.

    A stand-in for their output instead would not know of the noise that an SDE scheduler adds in each step: it would
    never be removed, and stay in the video as grain. In float32, in which a change of bf16 adds up to the very output.
    """

    def __init__(self, blocks):
        super().__init__()
        self.change = _BlocksChange(blocks)

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **inputs) -> tuple[Tensor, Tensor]:
        video, text = self.change(hidden_states, encoder_hidden_states, **inputs)
        return (hidden_states + video).to(hidden_states), (encoder_hidden_states + text).to(encoder_hidden_states)


class _BlocksChange(torch.nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = blocks

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **inputs) -> tuple[Tensor, Tensor]:
        video, text = hidden_states, encoder_hidden_states
        for block in self.blocks:
            video, text = block(video, text, **inputs)
        return video.float() - hidden_states, text.float() - encoder_hidden_states
