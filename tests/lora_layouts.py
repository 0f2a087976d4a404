"""A RefAdapter in every layout that LoRAs for CogVideoX are published in."""

from __future__ import annotations

import torch

from flexiact_core.cogvideox.native_keys import to_native
from flexiact_core.flexiact.refadapter import to_lora

LAYOUTS = ("released", "diffusers", "plain", "kohya", "native", "native kohya")


def in_layout(name: str, adapter) -> dict[str, torch.Tensor]:
    """A RefAdapter or LoRA as other programs write it; a LoRA is written in no layout of RefAdapters."""
    if name == "released":
        return dict(adapter.tensors)
    tensors = {}
    for weight, own in to_lora(adapter).matrices.items():
        module = weight.removesuffix(".weight")
        alpha = torch.tensor(own.scale * own.rank)
        native = to_native(weight).removesuffix(".weight")
        stem, down, up = {
            "diffusers": (f"transformer.{module}", "lora_A.weight", "lora_B.weight"),
            "plain": (module, "lora_A.default.weight", "lora_B.default.weight"),
            "kohya": ("lora_unet_" + module.replace(".", "_"), "lora_down.weight", "lora_up.weight"),
            "native": (f"diffusion_model.{native}", "lora_A.weight", "lora_B.weight"),
            "native kohya": ("lora_unet_" + native.replace(".", "_"), "lora_down.weight", "lora_up.weight"),
        }[name]
        tensors |= {f"{stem}.{down}": own.down, f"{stem}.{up}": own.up, f"{stem}.alpha": alpha}
    return {key: value.clone() for key, value in tensors.items()}
