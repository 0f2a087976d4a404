"""Ways to spend less time on a run of AMG: a chosen attention kernel, and levels compiled as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SettingError
from ..kernels import KERNEL_NAMES, Kernel, attend, choose_kernel, torch_kernel
from ..modules import share_weights


@dataclass(frozen=True)
class Acceleration:
    """How a run saves time; the default leaves all to torch.

    attention is one of kernels.KERNEL_NAMES; torch's kernels differ in rounding only, sage compares in 8 bits.
    compiled: torch.compile of each level of the UNet; results differ in rounding only.
    Raises SettingError for another kernel.
    """

    attention: str = "auto"
    compiled: bool = False

    def __post_init__(self):
        if self.attention not in KERNEL_NAMES:
            raise SettingError(f"attention '{self.attention}': choose one of {', '.join(KERNEL_NAMES)}.")


PLAIN = Acceleration()


def accelerate(unet, acceleration: Acceleration, like: Tensor) -> Callable[..., tuple]:
    """A function of the UNet's inputs that gives its output; the UNet given is left as it is.

    `like` is a tensor on the device and in the dtype of the run. Raises SettingError if that has no such kernel; the
    function does if torch cannot compile.
    """
    kernel = choose_kernel(acceleration.attention, unet.config.attention_head_dim, like)
    if kernel is not None or acceleration.compiled:
        unet = share_weights(unet)
    if kernel is not None:
        for module in unet.modules():
            if hasattr(module, "set_processor"):
                module.processor = KernelAttention(kernel)
    if acceleration.compiled:
        # Level by level: layers inside differ in width, and torch compiles one of them for eight widths at most.
        for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
            block.forward = torch.compile(block.forward)

    def run(*inputs, **named):
        with torch_kernel(acceleration.attention):
            try:
                return unet(*inputs, **named)
            except torch._dynamo.exc.BackendCompilerFailed as error:
                reason = " ".join(str(error).split())[:200]
                raise SettingError(f"compiled: torch cannot compile here ({reason}). Turn compiled off.") from error

    return run


class KernelAttention:
    """Attention of the UNet's layers, self and cross, by a kernel that is not one of torch's."""

    def __init__(self, kernel: Kernel):
        self.kernel = kernel

    def __call__(self, attn, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_) -> Tensor:
        """Hidden states (B, N, width) that attend to themselves, or to encoder_hidden_states (B, S, D)."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            layer(source).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, source in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        attended = attend(query, key, value, kernel=self.kernel).to(query.dtype)
        return attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))
