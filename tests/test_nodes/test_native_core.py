"""What the native nodes lean on in ComfyUI: its loaders, its memory, and that nothing of it is changed for others."""

from __future__ import annotations

import sys

import pytest
import torch
from native_model import (
    action,
    adapter,
    bare_model,
    config,
    make_model,
    native_state,
    released_velocity,
    tensors,
    velocity,
)

from flexiact_core.cogvideox.native_keys import to_native
from flexiact_core.flexiact.bias import MotionBias

BIAS = 0.37


class Constant(MotionBias):
    """A bias that is the same at every timestep."""

    def at(self, timestep):
        return self.strength


@pytest.fixture(scope="module")
def model():
    import comfy.model_management

    yield make_model()
    comfy.model_management.unload_all_models()


def acting(model):
    from flexiact_pack.nodes.native_action import with_action

    return with_action(model, action(1.0), Constant(BIAS))


def adapted(model):
    from flexiact_pack.nodes.native import with_lora

    return with_lora(model, adapter(), 0.7)


def ids_of_comfyui() -> dict[str, int]:
    """Every function and class of ComfyUI's modules, and every method of its CogVideoX, by name."""
    import comfy.ldm.cogvideo.model as cogvideo

    own = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("comfy", "comfy_extras")}
    found = {f"{name}.{key}": id(value) for name, module in own.items() for key, value in vars(module).items()
             if callable(value)}  # fmt: skip
    for kind in (one for one in vars(cogvideo).values() if isinstance(one, type)):
        found |= {f"{kind.__name__}.{key}": id(value) for key, value in vars(kind).items()}
    return found


def test_nothing_of_comfyui_is_changed_for_others(model):
    velocity(model)
    before = ids_of_comfyui()
    velocity(acting(adapted(model)))
    after = ids_of_comfyui()
    assert [key for key in before if after.get(key) != before[key]] == []
    assert "optimized_attention_override" not in model.model_options["transformer_options"]


def test_comfyuis_model_takes_every_tensor_and_has_no_other(model):
    own = make_model().model.diffusion_model
    found = own.load_state_dict(native_state(), strict=False)
    assert (found.missing_keys, found.unexpected_keys) == ([], [])


def test_comfyui_makes_the_released_size_of_the_released_names(released_transformer):
    import comfy.ldm.cogvideo.model
    import comfy.model_detection
    import comfy.ops

    state = {to_native(key): value for key, value in released_transformer.state_dict().items()}
    found = comfy.model_detection.detect_unet_config(state, "")
    found.pop("image_model")
    # The positions are computed as the model is made: of no size that matters here.
    with torch.device("meta"):
        own = comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel(
            **found | {"use_learned_positional_embeddings": False}, operations=comfy.ops.disable_weight_init
        )
    shapes = {key: value.shape for key, value in own.state_dict().items()}
    assert shapes == {key: value.shape for key, value in state.items() if key != "patch_embed.pos_embedding"}
    assert found["num_layers"] == 42 and found["in_channels"] == 32


def test_with_part_of_it_in_memory_the_model_computes_the_same():
    whole = acting(adapted(make_model()))
    expected = velocity(whole)
    whole.detach()
    partly = acting(adapted(make_model()))
    partly.partially_load(torch.device("cpu"), int(0.4 * partly.model_size()))
    assert partly.model.model_lowvram
    torch.testing.assert_close(velocity(partly, load=False), expected, rtol=0, atol=1e-5)


def test_weights_that_a_loader_keeps_small_are_read_as_it_reads_them():
    """As GGUF loaders do it: eight bits a weight and a scale for each 32, read anew at each call."""
    from flexiact_pack.nodes.host import native

    bare = bare_model(custom_operations=eight_bits())
    linear = bare.model.diffusion_model.blocks[0].q
    assert linear.weight is None and linear.small.dtype == torch.int8
    state = tensors("transformer")
    for key in state:
        if key.startswith("transformer_blocks.") and ".norm" not in key and state[key].ndim == 2:
            state[key] = read(*keep(state[key])).reshape(state[key].shape)
    expected = released_velocity(state, action(1.0), BIAS)
    assert (expected - released_velocity(None, action(1.0), BIAS)).abs().max() > 1e-3
    found = velocity(acting(native.with_fixes(bare)))
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    whole = {to_native(key): value for key, value in state.items()}
    torch.testing.assert_close(found, velocity(acting(native.make_model(config(), whole, 0.7))), rtol=0, atol=1e-6)


def keep(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Q8_0 of GGUF: whole numbers of eight bits, and a scale for each 32 of them."""
    blocks = weight.reshape(-1, 32)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 127
    return (blocks / scale).round().to(torch.int8), scale


def read(small: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return small * scale


def eight_bits():
    import comfy.ops
    import torch.nn.functional as F

    class Operations(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            def _load_from_state_dict(self, state, prefix, *args):
                if ".norm" in prefix or not prefix.startswith("blocks."):
                    return super()._load_from_state_dict(state, prefix, *args)
                self.shape = state[prefix + "weight"].shape
                self.small, self.scale = keep(state[prefix + "weight"])
                self.weight, self.bias = None, torch.nn.Parameter(state[prefix + "bias"], requires_grad=False)
                return None

            def forward(self, x):
                if self.weight is not None:
                    return super().forward(x)
                return F.linear(x, read(self.small, self.scale).reshape(self.shape).to(x), self.bias.to(x))

    return Operations
