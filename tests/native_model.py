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


def bare_model(state=None, **options):
    """The recorded base as ComfyUI's own loader makes it, with its learned positions; state is as native_state()."""
    import comfy.sd

    state = native_state() if state is None else dict(state)
    # ComfyUI cannot make learned positions of this width: they are put in as a buffer, as in its own models.
    positions = state.pop("patch_embed.pos_embedding")
    bare = comfy.sd.load_diffusion_model_state_dict(state, model_options=options)
    embedding = bare.model.diffusion_model.patch_embed
    embedding.register_buffer("pos_embedding", positions)
    embedding.max_text_seq_length = config()["max_text_seq_length"]
    return bare


def released_velocity(state=None, faes=None, bias: float = 0.0, adapters=()):
    """What diffusers' transformer with our own processors gives for the recorded inputs, (B, L, C, h, w).

    state is by diffusers' names, the recorded one if not given.
    """
    from diffusers import CogVideoXTransformer3DModel

    from flexiact_core.flexiact.processor import project_motion, with_motion_attention
    from flexiact_core.flexiact.refadapter import with_refadapters

    transformer = CogVideoXTransformer3DModel.from_config(config())
    transformer.load_state_dict(tensors("transformer") if state is None else state)
    given, kwargs = tensors("forward"), None
    if adapters:
        transformer = with_refadapters(transformer, adapters, torch.device("cpu"), torch.float32)
    if faes:
        kwargs = {"motion": project_motion(transformer, [(fae.tokens, weight) for fae, weight in faes]), "bias": bias}
        transformer = with_motion_attention(transformer)
    with torch.no_grad():
        return transformer.eval()(
            given["hidden_states"], given["encoder_hidden_states"], given["timestep"],
            image_rotary_emb=(given["rope_cos"], given["rope_sin"]), attention_kwargs=kwargs, return_dict=False,
        )[0]  # fmt: skip


def action(*strengths):
    from flexiact_core.flexiact.fae import load_fae

    fae = load_fae(GOLDEN / "fae.safetensors")
    return tuple((fae, strength) for strength in strengths)


def adapter():
    from flexiact_core.flexiact.refadapter import load_refadapter

    return load_refadapter(GOLDEN / "refadapter.safetensors")


@torch.no_grad()
def velocity(patcher, options=None, load: bool = True):
    """What the MODEL's transformer gives for the recorded inputs, (B, L, C, h, w), patches and wrappers on.

    Without load it is used as it lies in memory.
    """
    import comfy.model_management
    import comfy.sampler_helpers  # noqa: F401
    from comfy.patcher_extension import WrapperExecutor, WrappersMP

    given = tensors("forward")
    if load:
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
