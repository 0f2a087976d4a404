"""LoRAs in every layout on ComfyUI's own MODEL, against peft's layers on diffusers' transformer."""

from __future__ import annotations

import pytest
import torch
from lora_layouts import LAYOUTS, in_layout
from native_model import action, adapter, config, make_model, released_velocity, tensors, velocity
from safetensors.torch import save_file

from flexiact_core.cogvideox.loras import Lora, LoraMatrices, load_lora
from flexiact_core.flexiact.bias import MotionBias

# Weights that public LoRAs change, beyond attention.
WEIGHTS = ("attn1.to_q", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2", "norm1.linear")


@pytest.fixture(scope="module")
def model():
    import comfy.model_management

    yield make_model()
    comfy.model_management.unload_all_models()


def with_lora(model, lora, strength):
    from flexiact_pack.nodes.native import with_lora

    return with_lora(model, lora, strength)


def drawn_lora() -> Lora:
    """Random matrices of rank 4 on all layers, and on the two embeddings that have two dimensions."""
    shapes = {key: value.shape for key, value in tensors("transformer").items()}
    names = [f"transformer_blocks.{layer}.{name}.weight" for layer in range(config()["num_layers"]) for name in WEIGHTS]
    generator = torch.Generator().manual_seed(0)

    def matrix(*shape):
        return 0.05 * torch.randn(*shape, generator=generator)

    return Lora(
        {name: LoraMatrices(matrix(4, shapes[name][1]), matrix(shapes[name][0], 4), 1.5)
         for name in [*names, "patch_embed.text_proj.weight", "proj_out.weight"]}, "drawn"
    )  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_on_a_model_is_the_recorded_adapter(model, tmp_path, layout):
    save_file(in_layout(layout, adapter()), tmp_path / "x.safetensors")
    adapted = with_lora(model, load_lora(tmp_path / "x.safetensors"), 0.7)
    assert len(adapted.patches) == 12 and not model.patches
    torch.testing.assert_close(velocity(adapted), tensors("forward")["out_refadapter_w0.7"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_a_lora_and_an_action_are_what_peft_and_our_processor_compute(model, tmp_path, layout):
    from flexiact_pack.nodes.native_action import with_action

    class Constant(MotionBias):
        def at(self, timestep):
            return 0.6

    save_file(in_layout(layout, drawn_lora()), tmp_path / "x.safetensors")
    lora = load_lora(tmp_path / "x.safetensors")
    expected = released_velocity(None, action(1.0), 0.6, [(lora, 0.8)])
    assert (expected - released_velocity(None, action(1.0), 0.6)).abs().max() > 0.1
    found = velocity(with_action(with_lora(model, lora, 0.8), action(1.0), Constant()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_lora_without_alpha_counts_once(model, tmp_path):
    tensors_ = {key: value for key, value in in_layout("native", drawn_lora()).items() if not key.endswith("alpha")}
    save_file(tensors_, tmp_path / "x.safetensors")
    adapted = with_lora(model, load_lora(tmp_path / "x.safetensors"), 1.0)
    velocity(adapted)
    own = drawn_lora().matrices["transformer_blocks.1.ff.net.2.weight"]
    changed = (
        adapted.model.diffusion_model.blocks[1].ff_out.weight
        - tensors("transformer")["transformer_blocks.1.ff.net.2.weight"]
    )
    torch.testing.assert_close(changed, own.up @ own.down, rtol=0, atol=1e-6)
