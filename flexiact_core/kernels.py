"""Attention: one call for all, and its kernels, each tried before it is used. Any system attends by them.

A kernel of another package is a function and a row in KERNELS.

Shape letters: B batch, H heads, N tokens, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .errors import SettingError, ShapeError

TORCH_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}

# Attention (B, H, Nq, D) of query, key and value, and the logarithm (B, H, Nq) of each row's softmax sum.
Kernel = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def sage_attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """SageAttention 2 (B, H, Nq, D) of (B, H, N, D), and the natural logarithm (B, H, Nq) of each row's softmax sum.

    It compares queries and keys in 8 bits.

    Raises SettingError if the package is not installed, or too old to give the logarithm.
    """
    try:
        from sageattention import sageattn
    except ModuleNotFoundError as error:
        if error.name != "sageattention":
            raise
        raise SettingError(
            "attention 'sage' needs the package sageattention, which is not installed here. Install version 2 or "
            "newer, or choose auto."
        ) from None
    result = sageattn(query, key, value, tensor_layout="HND", is_causal=False, return_lse=True)
    if not isinstance(result, tuple):
        raise SettingError("attention 'sage' needs sageattention 2 or newer. Update it, or choose auto.")
    return result


KERNELS: dict[str, Kernel] = {"sage": sage_attention}
KERNEL_NAMES = ("auto", *TORCH_KERNELS, *KERNELS)


def choose_kernel(name: str, head_dim: int, like: Tensor) -> Kernel | None:
    """The kernel of a name of KERNEL_NAMES, tried on small tensors of the device and dtype of `like`.

    None for torch's own: torch_kernel() turns on the one that is meant. "auto" is torch's own choice.
    Raises SettingError if it does not run there, or computes something else.
    """
    if name in KERNELS:
        _try_kernel(name, KERNELS[name], head_dim, like)
        return KERNELS[name]
    probe = like.new_zeros(1, 1, 16, head_dim)
    try:
        with torch_kernel(name):
            F.scaled_dot_product_attention(probe, probe, probe)
    except RuntimeError:
        raise SettingError(f"attention '{name}' does not run on {_place(like)}. Choose auto.") from None
    return None


def _try_kernel(name: str, kernel: Kernel, head_dim: int, like: Tensor) -> None:
    drawn = torch.randn(3, 1, 1, 128, head_dim, generator=torch.Generator().manual_seed(0))
    # Keys have a mean in every channel, which SageAttention takes off and has to add to the sum again.
    drawn[1] += 1
    probe = drawn.to(like)
    try:
        attended, log_sum = kernel(*probe)
    except SettingError:
        raise
    # Such kernels are compiled for few cards, and fail in as many ways.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingError(f"attention '{name}' does not run on {_place(like)} ({reason}). Choose auto.") from error
    query, key, value = probe.float()
    logits = query @ key.mT * head_dim**-0.5
    distance = (attended.float() - logits.softmax(-1) @ value).norm() / value.norm()
    if not (distance < 0.05 and (log_sum - logits.logsumexp(-1)).abs().max() < 0.1):
        raise SettingError(
            f"attention '{name}': what is installed computes something else on {_place(like)}. Update its package, "
            "or choose auto."
        )


def torch_kernel(name: str) -> AbstractContextManager:
    """A context in which torch attends by one of TORCH_KERNELS; for other names it changes nothing."""
    return sdpa_kernel(TORCH_KERNELS[name]) if name in TORCH_KERNELS else nullcontext()


def _place(tensor: Tensor) -> str:
    return f"{tensor.device.type} in {str(tensor.dtype)[6:]}"


def attend(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None, kernel: Kernel | None = None
) -> Tensor:
    """Softmax attention over all keys; (B, H, Nq, D) in the dtype of `query`.

    query is (B, H, Nq, D), key and value are (B, H, Nk, D). key_bias (Nk,) is added to the logits of every query.
    kernel, if given, attends in place of torch's; it takes no bias and has no gradients.
    Raises ShapeError if key_bias is not Nk long.
    """
    if kernel is not None:
        assert key_bias is None
        return kernel(query, key, value)[0]
    if key_bias is not None:
        if key_bias.shape != key.shape[2:3]:
            raise ShapeError(f"key_bias: {key.shape[2]} values expected, one per key; {list(key_bias.shape)} found.")
        key_bias = key_bias.to(query.dtype).expand(1, 1, 1, -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=key_bias)


def kernel_with_lse(query: Tensor, key: Tensor, value: Tensor) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """A kernel that computes attend() and the logarithm (B, H, Nq) of each row's softmax sum, in float32.

    It is the one that plain attention would run here, so that a bias on some keys costs no slower one and a chosen
    backend is kept. None if that one keeps the logarithm to itself. Gradients do not pass the logarithm.
    """
    choice = torch._fused_sdp_choice(query, key, value)
    if choice == SDPBackend.MATH.value or query.shape[-1] % 8:
        return None
    if query.device.type == "cpu":
        return _flash_on_cpu
    if query.device.type == "cuda":
        return _CUDA_KERNELS.get(choice)
    return None


def _flash_on_cpu(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    mask = None if key_bias is None else key_bias.to(query.dtype).expand(1, 1, 1, -1)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, attn_mask=mask)


def _efficient(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    if key_bias is not None:
        # The kernel reads eight values at a time, also past the last one.
        padded = F.pad(key_bias.to(query.dtype), (0, -len(key_bias) % 8))
        key_bias = padded[: len(key_bias)].expand(*query.shape[:3], -1)
    attended, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, key_bias, True)
    return attended, lse[:, :, : query.shape[2]]  # the kernel rounds the number of rows up


def _flash(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    if key_bias is not None:
        return _efficient(query, key, value, key_bias)
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[:2]


def _cudnn(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    if key_bias is not None:
        return _efficient(query, key, value, key_bias)
    attended, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, True)
    return attended, lse.view(query.shape[:3])


_CUDA_KERNELS = {
    SDPBackend.FLASH_ATTENTION.value: _flash,
    SDPBackend.EFFICIENT_ATTENTION.value: _efficient,
    SDPBackend.CUDNN_ATTENTION.value: _cudnn,
}
