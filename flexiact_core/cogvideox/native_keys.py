"""The names of a CogVideoX transformer's tensors in ComfyUI's own model and in diffusers', each from the other.

The tensors are the same in both: only names differ, so a file is read in either, and a LoRA applied in either.
"""

from __future__ import annotations

import re
from collections.abc import Collection

# What programs put before ComfyUI's names.
NATIVE_PREFIXES = ("model.diffusion_model.", "diffusion_model.")

# Of the whole transformer, and of one layer: (diffusers, native). All other names are equal.
_WHOLE = (
    ("time_embedding.linear_1.", "time_embedding_linear_1."),
    ("time_embedding.linear_2.", "time_embedding_linear_2."),
    ("ofs_embedding.linear_1.", "ofs_embedding_linear_1."),
    ("ofs_embedding.linear_2.", "ofs_embedding_linear_2."),
)
_IN_LAYER = (
    ("attn1.to_q.", "q."),
    ("attn1.to_k.", "k."),
    ("attn1.to_v.", "v."),
    ("attn1.to_out.0.", "attn_out."),
    ("attn1.norm_q.", "norm_q."),
    ("attn1.norm_k.", "norm_k."),
    ("ff.net.0.proj.", "ff_proj."),
    ("ff.net.2.", "ff_out."),
)
_DIFFUSERS_LAYER = re.compile(r"transformer_blocks\.(\d+)\.(.*)")
_NATIVE_LAYER = re.compile(r"blocks\.(\d+)\.(.*)")


def to_native(key: str) -> str:
    """ComfyUI's name of a tensor, such as blocks.0.q.weight, of diffusers'; a native name stays as it is."""
    if layer := _DIFFUSERS_LAYER.fullmatch(key):
        return f"blocks.{layer[1]}.{_renamed(layer[2], _IN_LAYER)}"
    return _renamed(key, _WHOLE)


def to_diffusers(key: str) -> str:
    """diffusers' name of a tensor, such as transformer_blocks.0.attn1.to_q.weight, of ComfyUI's; its own stays.

    What programs put before native names, model.diffusion_model or diffusion_model, is taken off.
    """
    for prefix in NATIVE_PREFIXES:
        if key.startswith(prefix):
            return to_diffusers(key.removeprefix(prefix))
    if layer := _NATIVE_LAYER.fullmatch(key):
        return f"transformer_blocks.{layer[1]}.{_renamed(layer[2], [(native, own) for own, native in _IN_LAYER])}"
    return _renamed(key, [(native, own) for own, native in _WHOLE])


def are_native(keys: Collection[str]) -> bool:
    """Whether these are the names of a CogVideoX transformer in ComfyUI's own layout."""
    plain = {to_diffusers(key) for key in keys if to_diffusers(key) != key}
    return "transformer_blocks.0.attn1.to_q.weight" in plain


def _renamed(key: str, names) -> str:
    for old, new in names:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key
