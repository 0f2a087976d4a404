"""The recorded base as ComfyUI's own MODEL, and its recorded inputs as ComfyUI calls a model."""

from __future__ import annotations

import json
from pathlib import Path

import torch

GOLDEN = Path(__file__).parent / "golden" / "flexiact"


def tensors(name: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(GOLDEN / f"{name}.safetensors")


def config() -> dict:
    return json.loads((GOLDEN / "transformer_config.json").read_text())


def native_state() -> dict[str, torch.Tensor]:
    from flexiact_core.cogvideox.native_keys import to_native

    return {to_native(key): value for key, value in tensors("transformer").items()}


def make_model():
    from flexiact_pack.nodes.host import native

    return native.make_model(config(), native_state(), 0.7)


def action(*strengths):
    from flexiact_core.flexiact.fae import load_fae

    fae = load_fae(GOLDEN / "fae.safetensors")
    return tuple((fae, strength) for strength in strengths)


def adapter():
    from flexiact_core.flexiact.refadapter import load_refadapter

    return load_refadapter(GOLDEN / "refadapter.safetensors")


@torch.no_grad()
def velocity(patcher, options=None):
    """What the MODEL's transformer gives for the recorded inputs, (B, L, C, h, w), patches and wrappers on."""
    import comfy.model_management
    import comfy.sampler_helpers  # noqa: F401
    from comfy.patcher_extension import WrapperExecutor, WrappersMP

    given = tensors("forward")
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    model = patcher.model
    options = dict(patcher.model_options["transformer_options"]) | dict(options or {})
    options["wrappers"] = {kind: dict(own) for kind, own in patcher.wrappers.items()}
    x = given["hidden_states"].movedim(1, 2)

    def forward(x, t, c_concat, c_crossattn, control, transformer_options, **_):
        return model.diffusion_model(x, given["timestep"].float(), c_crossattn, transformer_options=transformer_options)

    sigma = model.model_sampling.sigmas[given["timestep"]]
    wrappers = [own for named in options["wrappers"].get(WrappersMP.APPLY_MODEL, {}).values() for own in named]
    run = WrapperExecutor.new_class_executor(forward, model, wrappers)
    return run.execute(x, sigma, None, given["encoder_hidden_states"], None, options).movedim(1, 2)
