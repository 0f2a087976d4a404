import torch

from flexiact_core.cogvideox.native_keys import are_native, to_diffusers, to_native


def test_every_golden_key_goes_there_and_back(golden):
    keys = set(golden.tensors("transformer"))
    native = {to_native(key) for key in keys}
    assert len(keys) == len(native) == 89
    assert {to_diffusers(key) for key in native} == keys
    assert {to_diffusers(f"model.diffusion_model.{key}") for key in native} == keys


def test_names_of_both_kinds_stay_as_they_are_in_their_own_direction(golden):
    keys = set(golden.tensors("transformer"))
    native = {to_native(key) for key in keys}
    assert {to_diffusers(key) for key in keys} == keys and {to_native(key) for key in native} == native


def test_the_two_layouts_are_told_apart(golden):
    keys = set(golden.tensors("transformer"))
    assert are_native({to_native(key) for key in keys}) and not are_native(keys)


def test_the_released_model_has_no_name_that_the_map_does_not_know(released_transformer):
    keys = released_transformer.state_dict()
    assert len({to_native(key) for key in keys}) == len(keys)
    assert not any("attn1" in to_native(key) or ".ff." in to_native(key) for key in keys)
    assert to_native("transformer_blocks.41.ff.net.0.proj.weight") == "blocks.41.ff_proj.weight"


def test_a_base_is_read_from_a_file_with_native_names(small_base, tmp_path):
    from safetensors.torch import save_file
    from small_models import weights_of

    from flexiact_core.cogvideox.loading import load_base

    weights = weights_of(small_base / "transformer")
    native = {f"diffusion_model.{to_native(key)}": value for key, value in weights.items()}
    save_file(native, tmp_path / "x.safetensors")
    own = load_base(tmp_path / "x.safetensors", small_base, torch.float32).transformer.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[key], weights[key]) for key in weights)


def test_the_script_writes_every_tensor_under_its_native_name(small_base, tmp_path):
    from safetensors.torch import load_file
    from small_models import weights_of

    from flexiact_core.cogvideox.write_native import main

    main([str(small_base), str(tmp_path / "native.safetensors")])
    written, weights = load_file(tmp_path / "native.safetensors"), weights_of(small_base / "transformer")
    assert written.keys() == {to_native(key) for key in weights}
    assert all(torch.equal(written[to_native(key)], weights[key]) for key in weights)
