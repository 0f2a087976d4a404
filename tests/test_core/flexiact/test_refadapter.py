import copy
import json
import os

import pytest
import torch
from safetensors.torch import save_file
from small_models import make_fae, make_refadapter
from torch.testing import assert_close

from flexiact_core import weight_files
from flexiact_core.cogvideox.loras import load_lora
from flexiact_core.errors import FileError
from flexiact_core.flexiact.refadapter import (
    PROJECTIONS,
    check_refadapter,
    load_refadapter,
    refadapter_shapes,
    save_refadapter,
    to_lora,
    with_refadapters,
)
from flexiact_core.weight_files import read_tensors

CPU = torch.device("cpu")


@pytest.fixture
def adapter_file(tmp_path):
    return make_refadapter(tmp_path / "refnetlora_step40000_model.safetensors")


def adapted(transformer, *adapters, dtype=torch.float32):
    return with_refadapters(transformer, adapters, CPU, dtype)


@torch.no_grad()
def run(transformer, golden):
    inputs = golden.tensors("forward")
    return transformer(
        inputs["hidden_states"],
        inputs["encoder_hidden_states"],
        inputs["timestep"],
        image_rotary_emb=(inputs["rope_cos"], inputs["rope_sin"]),
        return_dict=False,
    )[0]


def other_adapter(golden):
    adapter = copy.copy(golden.refadapter)
    object.__setattr__(adapter, "tensors", {key: value.flip(0) * 0.5 for key, value in adapter.tensors.items()})
    return adapter


def folded(transformer, adapters):
    """The transformer with every adapter multiplied into its weights: another way to the same numbers."""
    transformer = copy.deepcopy(transformer)
    for adapter, weight in adapters:
        for layer, block in enumerate(transformer.transformer_blocks):
            for name, projection in PROJECTIONS.items():
                prefix = f"transformer_blocks.{layer}.attn1.processor.lora_{name}"
                down, up = adapter.tensors[f"{prefix}.down.weight"], adapter.tensors[f"{prefix}.up.weight"]
                with torch.no_grad():
                    block.attn1.get_submodule(projection).weight += 0.5 * weight * up @ down
    return transformer


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_both_kinds_of_file_hold_the_same_adapter(golden, suffix):
    adapter = load_refadapter(golden.folder / f"refadapter{suffix}")
    assert adapter.num_layers == golden.config["num_layers"]
    assert adapter.width == golden.config["num_attention_heads"] * golden.config["attention_head_dim"]
    assert all(torch.equal(value, golden.refadapter.tensors[key]) for key, value in adapter.tensors.items())


@pytest.mark.parametrize("weight", [0.7, 1.0, -0.3])
def test_an_adapter_equals_its_matrices_folded_into_the_weights(golden, weight):
    found = run(adapted(golden.transformer, (golden.refadapter, weight)), golden)
    expected = run(folded(golden.transformer, [(golden.refadapter, weight)]), golden)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-05)


def test_adapters_add_up_each_with_its_own_weight(golden):
    adapters = [(golden.refadapter, 0.7), (other_adapter(golden), 0.4)]
    found = run(adapted(golden.transformer, *adapters), golden)
    torch.testing.assert_close(found, run(folded(golden.transformer, adapters), golden), rtol=0, atol=1e-05)
    assert (found - run(adapted(golden.transformer, adapters[0]), golden)).abs().max() > 1e-3


def test_the_same_adapter_twice_counts_twice(golden):
    twice = run(adapted(golden.transformer, (golden.refadapter, 0.3), (golden.refadapter, 0.4)), golden)
    once = run(adapted(golden.transformer, (golden.refadapter, 0.7)), golden)
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-05)


def test_weight_0_is_no_adapter(golden):
    silent = run(adapted(golden.transformer, (golden.refadapter, 0.0)), golden)
    assert torch.equal(silent, run(golden.transformer, golden))


def test_no_adapter_is_the_transformer_itself(golden):
    assert adapted(golden.transformer) is golden.transformer


def test_the_base_and_other_twins_never_notice(golden):
    base = golden.transformer
    keys, classes = list(base.state_dict()), [type(module) for module in base.modules()]
    processors = list(base.attn_processors.values())
    before = run(base, golden)
    first = adapted(base, (golden.refadapter, 0.7))
    with_first = run(first, golden)
    second = adapted(base, (other_adapter(golden), 1.0))
    run(second, golden)
    assert list(base.state_dict()) == keys
    assert [type(module) for module in base.modules()] == classes
    assert all(now is then for now, then in zip(base.attn_processors.values(), processors, strict=True))
    assert torch.equal(run(base, golden), before)
    assert torch.equal(run(first, golden), with_first)
    assert not torch.equal(with_first, before)


def test_weights_of_the_base_are_shared_not_copied(golden):
    base = golden.transformer
    ours = {value.data_ptr() for value in adapted(base, (golden.refadapter, 0.7)).state_dict().values()}
    assert {value.data_ptr() for value in base.state_dict().values()} <= ours


@pytest.mark.parametrize("trainable", [True, False])
def test_the_gradient_flags_of_the_base_stay_as_they_are(golden, trainable):
    base = copy.deepcopy(golden.transformer).requires_grad_(trainable)
    twin = adapted(base, (golden.refadapter, 0.7))
    assert all(parameter.requires_grad is trainable for parameter in base.parameters())
    assert not any(parameter.requires_grad for name, parameter in twin.named_parameters() if ".lora_" in name)


def test_the_adapter_value_is_not_reached_through_the_layers(golden):
    before = {key: value.clone() for key, value in golden.refadapter.tensors.items()}
    twin = adapted(golden.transformer, (golden.refadapter, 0.7))
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if ".lora_" in name:
                parameter.zero_()
    assert all(torch.equal(golden.refadapter.tensors[key], value) for key, value in before.items())


def test_matrices_take_the_dtype_that_the_transformer_computes_in(golden):
    twin = adapted(copy.deepcopy(golden.transformer).to(torch.bfloat16), (golden.refadapter, 0.7), dtype=torch.bfloat16)
    matrices = [parameter for name, parameter in twin.named_parameters() if ".lora_" in name]
    assert len(matrices) == 8 * golden.config["num_layers"]
    assert {matrix.dtype for matrix in matrices} == {torch.bfloat16}


def test_saved_adapters_come_back(golden, tmp_path):
    path = save_refadapter(golden.refadapter, tmp_path / "again.safetensors", {"rank": "any"})
    again = load_refadapter(path)
    assert (again.num_layers, again.rank, again.width) == tuple(
        getattr(golden.refadapter, name) for name in ("num_layers", "rank", "width")
    )
    assert all(torch.equal(value, golden.refadapter.tensors[key]) for key, value in again.tensors.items())


def rewrite(path, change):
    from safetensors.torch import save_file

    tensors = read_tensors(path)
    change(tensors)
    save_file(tensors, path)
    return path


FIRST = "transformer_blocks.0.attn1.processor.lora_q.down.weight"


def test_missing_keys_are_named(adapter_file):
    rewrite(adapter_file, lambda tensors: tensors.pop(FIRST))
    with pytest.raises(FileError, match=rf"{adapter_file.name}: 1 keys missing \({FIRST}\).*download it again"):
        load_refadapter(adapter_file)


def test_a_missing_layer_is_noticed(adapter_file):
    rewrite(adapter_file, lambda t: [t.pop(key) for key in list(t) if key.startswith("transformer_blocks.0.")])
    with pytest.raises(FileError, match="8 keys missing"):
        load_refadapter(adapter_file)


def test_unexpected_keys_are_named(adapter_file):
    rewrite(adapter_file, lambda tensors: tensors.update({"text_model.weight": torch.ones(2)}))
    with pytest.raises(FileError, match=r"1 keys unexpected \(text_model.weight\)"):
        load_refadapter(adapter_file)


def test_mixed_ranks_are_refused(adapter_file):
    last = "transformer_blocks.1.attn1.processor.lora_v.down.weight"
    rewrite(adapter_file, lambda tensors: tensors.update({last: tensors[last][:2].clone()}))
    with pytest.raises(FileError, match=r"1 tensors of another shape \(.*lora_v.down.weight: \[4, 32\] expected, "):
        load_refadapter(adapter_file)


def test_matrices_that_are_no_matrices_are_refused(adapter_file):
    rewrite(adapter_file, lambda tensors: tensors.update({key: value[None] for key, value in tensors.items()}))
    with pytest.raises(FileError, match=r"matrices expected, shape \[1, "):
        load_refadapter(adapter_file)


def test_matrices_that_are_not_numbers_are_refused(adapter_file):
    rewrite(adapter_file, lambda tensors: tensors[FIRST].fill_(float("nan")))
    with pytest.raises(FileError, match=f"{adapter_file.name}: .*not numbers"):
        load_refadapter(adapter_file)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_an_fae_given_as_adapter_is_called_by_its_name(tmp_path, suffix):
    path = make_fae(tmp_path / f"kick{suffix}")
    with pytest.raises(FileError, match=f"kick{suffix}: .*This is an FAE: choose it in Load Action"):
        load_refadapter(path)


LORA_NAMES = {
    "peft": ("{module}.lora_A.weight", "{module}.lora_B.weight"),
    "peft with an adapter's name": (
        "base_model.model.{module}.lora_A.default.weight",
        "base_model.model.{module}.lora_B.default.weight",
    ),
    "CogVideoX-Factory": ("transformer.{module}.lora_A.weight", "transformer.{module}.lora_B.weight"),
    "diffusers, older": ("transformer.{module}.lora.down.weight", "transformer.{module}.lora.up.weight"),
    "wrapped for training": ("module.{released}.down.weight", "module.{released}.up.weight"),
}


def renamed(adapter, down, up):
    state = {}
    for layer in range(adapter.num_layers):
        for projection, part in PROJECTIONS.items():
            released = f"transformer_blocks.{layer}.attn1.processor.lora_{projection}"
            module = f"transformer_blocks.{layer}.attn1.{part}"
            for side, name in (("down", down), ("up", up)):
                key = name.format(module=module, released=released, flat=module.replace(".", "_"))
                state[key] = adapter.tensors[f"{released}.{side}.weight"].clone()
    return state


@pytest.mark.parametrize("layout", LORA_NAMES)
def test_the_same_matrices_in_other_names_are_taken(tmp_path, adapter_file, layout):
    adapter = load_refadapter(adapter_file)
    save_file(renamed(adapter, *LORA_NAMES[layout]), tmp_path / "l.safetensors")
    found = load_refadapter(tmp_path / "l.safetensors")
    assert found.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(found.tensors[key], value) for key, value in adapter.tensors.items())


def change_of(path, layer=0, projection="proj"):
    """What a file changes one weight by, at weight 1."""
    weight = f"transformer_blocks.{layer}.attn1.{PROJECTIONS[projection]}.weight"
    matrices = to_lora(load_refadapter(path)).matrices[weight]
    return matrices.scale * matrices.up @ matrices.down


@pytest.mark.parametrize("rank", [4, 6])
def test_a_stored_alpha_counts(tmp_path, rank):
    adapter = load_refadapter(make_refadapter(tmp_path / "r.safetensors", rank=rank))
    state = renamed(adapter, *LORA_NAMES["peft"])
    key, other = "transformer_blocks.0.attn1.to_out.0", "transformer_blocks.1.attn1.to_q"
    product, another = (state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"] for name in (key, other))
    file = tmp_path / "l.safetensors"

    def says(alpha):
        return {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": alpha, "transformer.r": rank})}

    save_file(state, file)
    assert_close(change_of(file), 0.5 * product)
    save_file(state, file, says(2 * rank))
    assert_close(change_of(file), 2 * product)
    # One in the file goes before what the metadata says of all.
    save_file(state | {f"{key}.alpha": torch.tensor(3.0)}, file, says(rank))
    assert_close(change_of(file), 3 / rank * product)
    assert_close(change_of(file, 1, "q"), another)


@pytest.mark.parametrize("alpha", [torch.tensor(float("nan")), torch.zeros(2), torch.zeros(0)])
def test_an_alpha_that_is_no_number_is_refused(tmp_path, adapter_file, alpha):
    state = renamed(load_refadapter(adapter_file), *LORA_NAMES["peft"])
    save_file(state | {"transformer_blocks.0.attn1.to_q.alpha": alpha}, tmp_path / "l.safetensors")
    for load in (load_refadapter, load_lora):
        with pytest.raises(FileError, match="l.safetensors: the alpha of .*0.attn1.to_q.* is not a number"):
            load(tmp_path / "l.safetensors")


def test_loras_that_are_no_refadapter_are_called_loras(tmp_path, adapter_file):
    adapter = load_refadapter(adapter_file)
    kohya = renamed(adapter, "lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight")
    save_file(kohya, tmp_path / "l.safetensors")
    with pytest.raises(FileError, match="l.safetensors: a LoRA in kohya names, or of other layers .16 tensors found"):
        load_refadapter(tmp_path / "l.safetensors")
    save_file({"transformer.transformer_blocks.0.ff.net.2.lora_A.weight": torch.ones(4, 8)}, tmp_path / "l.safetensors")
    with pytest.raises(FileError, match="l.safetensors: a LoRA in other names, or of other layers"):
        load_refadapter(tmp_path / "l.safetensors")


@pytest.mark.parametrize("layer", ["2000000000", "00"])
def test_an_impossible_layer_is_refused_before_a_table_is_made(tmp_path, layer):
    path = tmp_path / "l.safetensors"
    save_file({f"transformer_blocks.{layer}.attn1.processor.lora_q.down.weight": torch.ones(1, 8)}, path)
    with pytest.raises(FileError, match="l.safetensors: "):
        load_refadapter(path)


@pytest.mark.parametrize(("layers", "dim"), [(3, 32), (1, 32), (2, 64)])
def test_an_adapter_of_another_base_is_refused_and_leaves_nothing(tmp_path, base, layers, dim):
    adapter = load_refadapter(make_refadapter(tmp_path / "ref.pt", layers=layers, dim=dim))
    keys = list(base.transformer.state_dict())
    message = f"RefAdapter 'ref': made for {layers} layers of width {dim}; .*2 layers of width 32.*CogVideoX-5B-I2V"
    with pytest.raises(FileError, match=message):
        check_refadapter(adapter, base.transformer)
    good = load_refadapter(make_refadapter(tmp_path / "good.pt"))
    with pytest.raises(FileError, match=message):
        adapted(base.transformer, (good, 1.0), (adapter, 1.0))
    assert list(base.transformer.state_dict()) == keys


@pytest.mark.parametrize("rank", [1, 16, 32])
def test_any_rank_fits(tmp_path, base, rank):
    adapter = load_refadapter(make_refadapter(tmp_path / "ref.pt", rank=rank))
    assert adapter.rank == rank
    twin = adapted(base.transformer, (adapter, 1.0))
    scale = twin.transformer_blocks[0].attn1.to_q.scaling["lora_0"]
    assert scale == 0.5


def test_a_full_disk_leaves_the_old_adapter(golden, tmp_path, monkeypatch):
    path = save_refadapter(golden.refadapter, tmp_path / "ref.safetensors", {})
    size = path.stat().st_size

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_files.os, "replace", no_space)
    with pytest.raises(FileError, match="ref.safetensors: could not be saved"):
        save_refadapter(golden.refadapter, path, {})
    assert os.listdir(tmp_path) == ["ref.safetensors"] and path.stat().st_size == size


def test_a_file_of_the_released_sizes_is_accepted(tmp_path, released_transformer):
    # Rank 64 in 42 layers of width 3072, as views of one number: the file stays small, its shapes are the real ones.
    number = torch.full((1,), 0.5, dtype=torch.bfloat16)
    shapes = refadapter_shapes(42, 64, 3072)
    assert len(shapes) == 42 * 4 * 2
    path = tmp_path / "refnetlora_step40000_model.pt"
    torch.save({key: number.expand(shape) for key, shape in shapes.items()}, path)
    adapter = load_refadapter(path)
    assert (adapter.num_layers, adapter.rank, adapter.width) == (42, 64, 3072)
    check_refadapter(adapter, released_transformer)
