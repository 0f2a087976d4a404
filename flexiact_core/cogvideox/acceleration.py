"""Ways to spend less time on a denoising run: reused steps, compiled blocks, a chosen attention kernel.

A step cache is a row in STEP_CACHES, a kernel one in KERNELS; all that lists the choices reads them from there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SettingError
from ..kernels import KERNEL_NAMES, choose_kernel, torch_kernel
from ..modules import share_weights
from .processor import with_kernel_attention

if TYPE_CHECKING:
    from diffusers import CogVideoXTransformer3DModel

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

    step_cache: str = "off"
    threshold: float = 0.1
    interval: int = 3
    compiled: bool = False
    attention: str = "auto"

    def __post_init__(self) -> None:
        if self.step_cache not in STEP_CACHES:
            raise SettingError(f"step_cache '{self.step_cache}': choose one of {', '.join(STEP_CACHES)}.")
        if self.attention not in KERNEL_NAMES:
            raise SettingError(f"attention '{self.attention}': choose one of {', '.join(KERNEL_NAMES)}.")
        if not 0 <= self.threshold < 1:
            raise SettingError(f"threshold {self.threshold}: at least 0 (no step reused) and below 1 are possible.")
        if self.interval < 1:
            raise SettingError(f"interval {self.interval}: at least 1 (every step in full) is needed.")

    def held_bytes(self, num_values: int, itemsize: int) -> int:
        """What a step cache holds beside a forward, for hidden states of so many values of so many bytes each."""
        cache = STEP_CACHES[self.step_cache]
        return 0 if cache is None else cache.held_bytes(num_values, itemsize)


@dataclass(frozen=True)
class StepCache:
    """A way to reuse earlier steps: how it is attached to a transformer's own tree, and the bytes that it then holds.

    held_bytes counts for hidden states of so many values of so many bytes each.
    """

    attach: Callable[[Any, Acceleration], None]
    held_bytes: Callable[[int, int], int]


def accelerate(
    transformer: CogVideoXTransformer3DModel, acceleration: Acceleration, like: Tensor
) -> Callable[..., Tensor]:
    """A function of the transformer's named inputs that gives its output, for one denoising step after the other.

    It remembers earlier steps where a step cache asks for it, so it serves one run. What is attached for it sits on a
    second tree of modules over the same weights; the transformer given is left as it is. `like` is a tensor on the
    device and in the dtype of the run. A kernel that is not one of torch's reaches the attention processors as their
    named argument `kernel`: it gives attention and the logarithm of each row's softmax sum, as sage_attention().
    Raises SettingError if the device has no such attention kernel, or diffusers no such step cache; the function
    does if torch cannot compile.
    """
    kernel = choose_kernel(acceleration.attention, transformer.config.attention_head_dim, like)
    cache = STEP_CACHES[acceleration.step_cache]
    if kernel is not None:
        transformer = with_kernel_attention(transformer)
    if acceleration.compiled or cache:
        transformer = share_weights(transformer)
    if acceleration.compiled:
        # Block by block, as they are all alike: one is compiled and serves for every layer.
        for block in transformer.transformer_blocks:
            block.forward = torch.compile(block.forward)
    if cache:
        cache.attach(transformer, acceleration)

    def predict(**inputs) -> Tensor:
        if kernel is not None:
            inputs["attention_kwargs"] = {**(inputs.get("attention_kwargs") or {}), "kernel": kernel}
        with torch_kernel(acceleration.attention), transformer.cache_context("run") if cache else nullcontext():
            try:
                return transformer(**inputs, return_dict=False)[0]
            except torch._dynamo.exc.BackendCompilerFailed as error:
                reason = " ".join(str(error).split())[:200]
                raise SettingError(f"compiled: torch cannot compile here ({reason}). Turn compiled off.") from error

    return predict


def _attach_first_block(transformer: CogVideoXTransformer3DModel, acceleration: Acceleration) -> None:
    config = _diffusers_cache("FirstBlockCacheConfig", acceleration)
    if len(transformer.transformer_blocks) == 1:
        raise SettingError("step_cache 'first_block': this base has one block, so there is nothing to skip.")
    transformer.enable_cache(config(threshold=acceleration.threshold))


def _attach_taylor(transformer: CogVideoXTransformer3DModel, acceleration: Acceleration) -> None:
    config = _diffusers_cache("TaylorSeerCacheConfig", acceleration)
    # On all blocks as one module. diffusers' own choice of layers finds none in CogVideoX, its "lite" form would
    # hook the final projection, which is shared with the base, and all layers would hold several GB of outputs.
    transformer.transformer_blocks = torch.nn.ModuleList([_BlockStack(transformer.transformer_blocks)])
    transformer.enable_cache(
        config(
            cache_interval=acceleration.interval,
            disable_cache_before_step=TAYLOR_WARM_UP,
            max_order=1,
            taylor_factors_dtype=torch.float32,
            cache_identifiers=[r"transformer_blocks\.0\.change"],
        )
    )


def _diffusers_cache(name: str, acceleration: Acceleration) -> type:
    import diffusers.hooks

    if not hasattr(diffusers.hooks, name):
        raise SettingError(
            f"step_cache '{acceleration.step_cache}' needs diffusers 0.36 or newer. Update it, or choose off."
        )
    return getattr(diffusers.hooks, name)


class _BlockStack(torch.nn.Module):
    """All blocks as one, which adds to its input what they change, so that a step cache can stand in for the change.

    A stand-in for their output instead would not know of the noise that an SDE scheduler adds in each step: it would
    never be removed, and stay in the video as grain. In float32, in which a change of bf16 adds up to the very output.
    """

    def __init__(self, blocks: torch.nn.ModuleList):
        super().__init__()
        self.change = _BlocksChange(blocks)

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **inputs) -> tuple[Tensor, Tensor]:
        video, text = self.change(hidden_states, encoder_hidden_states, **inputs)
        return (hidden_states + video).to(hidden_states), (encoder_hidden_states + text).to(encoder_hidden_states)


class _BlocksChange(torch.nn.Module):
    def __init__(self, blocks: torch.nn.ModuleList):
        super().__init__()
        self.blocks = blocks

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **inputs) -> tuple[Tensor, Tensor]:
        video, text = hidden_states, encoder_hidden_states
        for block in self.blocks:
            video, text = block(video, text, **inputs)
        return video.float() - hidden_states, text.float() - encoder_hidden_states


STEP_CACHES: dict[str, StepCache | None] = {
    "off": None,
    # What the first block gave, what it changed, and what all the others changed.
    "first_block": StepCache(_attach_first_block, lambda num_values, itemsize: 3 * num_values * itemsize),
    # Two factors in float32; a step in full holds the next two before they take their place.
    "taylor": StepCache(_attach_taylor, lambda num_values, _: 4 * num_values * 4),
}

EXACT = Acceleration()
