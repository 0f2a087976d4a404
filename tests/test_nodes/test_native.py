"""ComfyUI's own model with what the native nodes set right in it and put on it, against what the release computed."""

from __future__ import annotations

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

from flexiact_core.errors import FileError, SettingError
from flexiact_core.flexiact.bias import MotionBias


class Constant(MotionBias):
    """A bias that is the same at every timestep."""

    def at(self, timestep):
        return self.strength


@pytest.fixture(scope="module")
def model():
    import comfy.model_management

    yield make_model()
    comfy.model_management.unload_all_models()


def close(found, name, atol=1e-5):
    torch.testing.assert_close(found, tensors("forward")[name], rtol=0, atol=atol)


def with_adapter(model, weight=0.7):
    from flexiact_pack.nodes.native import with_lora

    return with_lora(model, adapter(), weight)


def with_action(model, bias, *strengths):
    from flexiact_pack.nodes.native_action import with_action

    return with_action(model, action(*(strengths or (1.0,))), Constant(bias))


def test_the_model_set_right_is_the_released_one(model):
    close(velocity(model), "out_base")


def test_comfyui_alone_computes_something_else(model):
    import comfy.model_detection

    found = comfy.model_detection.detect_unet_config(native_state(), "")
    assert found["use_learned_positional_embeddings"] and not found["use_rotary_positional_embeddings"]
    bare = bare_model()
    transformer = bare.model.diffusion_model
    # As it takes the released file, which has learned positions.
    transformer.patch_embed.use_learned_positional_embeddings = True
    transformer.use_rotary_positional_embeddings = False
    wrong = (velocity(bare) - tensors("forward")["out_base"]).abs().max()
    assert wrong > 0.5, "ComfyUI has changed its CogVideoX"
    transformer.use_rotary_positional_embeddings = True
    wrong = (velocity(bare) - tensors("forward")["out_base"]).abs().max()
    assert wrong > 0.5, "ComfyUI has changed its rotary positions"


def test_adapter_and_action_are_the_released_ones(model):
    close(velocity(with_adapter(model)), "out_refadapter_w0.7")
    close(velocity(with_action(with_adapter(model), 0.0)), "out_fae_w0.7_noreweight")
    close(velocity(with_action(with_adapter(model), 1.0)), "out_fae_w0.7_rw1.0")
    close(velocity(with_action(with_adapter(model), 0.37)), "out_fae_w0.7_rw0.37")
    close(velocity(with_action(with_adapter(model, 0.0), 0.0)), "out_fae_w0_noreweight")


def test_the_model_that_came_in_is_unchanged(model):
    before, options = velocity(model), repr(model.model_options)
    velocity(with_action(with_adapter(model), 1.0))
    assert torch.equal(velocity(model), before) and repr(model.model_options) == options
    assert not model.patches and not model.wrappers.get("apply_model")


def test_two_actions_of_other_strengths_are_what_our_processor_computes(model):
    expected = released_velocity(faes=action(1.5, 0.4), bias=0.6)
    torch.testing.assert_close(velocity(with_action(model, 0.6, 1.5, 0.4)), expected, rtol=0, atol=5e-6)
    called = []

    def override(attention, *args, **kwargs):
        called.append(1)
        return attention(*args, **kwargs)

    found = velocity(with_action(model, 0.6, 1.5, 0.4), {"optimized_attention_override": override})
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    assert len(called) == 2 * config()["num_layers"], "the user's own attention was left out"


def test_a_node_that_skips_layers_is_named(model):
    acting, block = with_action(model, 1.0), model.model.diffusion_model.blocks[1]

    def skip(hidden_states, encoder_hidden_states, **_):
        return hidden_states, encoder_hidden_states

    def repeat(hidden_states, encoder_hidden_states, **kwargs):
        return own(*own(hidden_states, encoder_hidden_states, **kwargs), **kwargs)

    own = block.forward
    acting.add_object_patch("diffusion_model.blocks.1.forward", skip)
    with pytest.raises(SettingError, match="3 layers, and 2 attended"):
        velocity(acting)
    acting = with_action(model, 1.0)
    acting.add_object_patch("diffusion_model.blocks.1.forward", repeat)
    with pytest.raises(SettingError, match="3 layers, and more attended"):
        velocity(acting)


def test_fixes_make_the_same_of_a_model_from_comfyuis_own_loader(model):
    from flexiact_pack.nodes.native import CogVideoXFixes

    bare = bare_model()
    embedding = bare.model.diffusion_model.patch_embed
    for embedding.use_learned_positional_embeddings in (False, True):
        close(velocity(CogVideoXFixes.execute(bare).args[0]), "out_base")


def test_other_models_are_refused_by_name(model, monkeypatch):
    from flexiact_pack.nodes.host import native

    transformer = model.model.diffusion_model
    for name, value, words in (
        ("patch_size_t", 2, "CogVideoX 1.5"),
        ("in_channels", 16, "text-to-video"),
        ("in_channels", 48, "inpainting or control"),
    ):
        kept = getattr(transformer, name)
        setattr(transformer, name, value)
        try:
            with pytest.raises(FileError, match=words):
                native.with_fixes(model)
        finally:
            setattr(transformer, name, kept)
    monkeypatch.setattr(transformer, "in_channels", 16)
    monkeypatch.setitem(transformer._modules, "blocks", torch.nn.ModuleList(torch.nn.Identity() for _ in range(30)))
    with pytest.raises(FileError, match="CogVideoX-2B, a text-to-video model"):
        native.with_fixes(model)
    other = model.clone()
    other.model = torch.nn.Identity()
    with pytest.raises(FileError, match="this is Identity, no CogVideoX"):
        native.with_fixes(other)


def test_an_action_of_another_base_is_refused(model):
    from flexiact_pack.nodes.native_action import with_action

    from flexiact_core.flexiact.fae import FAE

    with pytest.raises(FileError, match="made for 2 layers of width 64"):
        with_action(model, ((FAE(torch.zeros(2, 4, 64), "x"), 1.0),), MotionBias())
