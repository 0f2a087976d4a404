import os

import pytest
import torch
from safetensors.torch import save_file
from small_models import make_fae, make_refadapter

from flexiact_core import weight_files
from flexiact_core.errors import FileError
from flexiact_core.flexiact.fae import FAE, TOKEN_KEY, check_fae, load_fae, save_fae, save_released_fae
from flexiact_core.weight_files import read_tensors


@pytest.fixture
def fae_file(tmp_path):
    return make_fae(tmp_path / "kick.safetensors")


def rewrite(path, change):
    tensors = read_tensors(path)
    change(tensors)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_both_kinds_of_file_hold_the_tokens_of_every_layer_in_order(golden, suffix):
    tensors = golden.tensors("fae")
    fae = load_fae(golden.folder / f"fae{suffix}")
    assert fae.tokens.shape[0] == golden.config["num_layers"] == len(tensors)
    for layer, tokens in enumerate(fae.tokens):
        assert torch.equal(tokens[None], tensors[TOKEN_KEY.format(layer)])


def test_layers_beyond_9_stay_in_their_order(tmp_path):
    path = tmp_path / "many.safetensors"
    save_file({TOKEN_KEY.format(layer): torch.full((1, 2, 4), float(layer)) for layer in range(12)}, path)
    assert load_fae(path).tokens[:, 0, 0].tolist() == list(range(12))


def test_a_saved_fae_comes_back_with_its_metadata(tmp_path):
    fae = FAE(torch.randn(3, 5, 8), name="kick", metadata={"base": "cogvideox-i2v-3x8", "steps": 1500})
    again = load_fae(save_fae(fae, tmp_path / "kick.safetensors"))
    assert torch.equal(again.tokens, fae.tokens)
    assert again.name == "kick"
    assert again.metadata == {"base": "cogvideox-i2v-3x8", "steps": "1500"}


def test_a_saved_fae_has_the_released_keys_and_shapes(tmp_path, fae_file):
    path = save_fae(load_fae(fae_file), tmp_path / "again.safetensors")
    before, after = read_tensors(fae_file), read_tensors(path)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_tokens_keep_the_dtype_they_were_stored_in(tmp_path):
    path = save_fae(FAE(torch.randn(2, 3, 8).to(torch.bfloat16)), tmp_path / "kick.safetensors")
    assert load_fae(path).tokens.dtype == torch.bfloat16


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_refadapter_given_as_fae_is_called_by_its_name(tmp_path, suffix):
    path = make_refadapter(tmp_path / f"ref{suffix}")
    with pytest.raises(FileError, match=f"ref{suffix}: no motion tokens.*RefAdapter: choose it in Apply RefAda"):
        load_fae(path)


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"vae.weight": torch.ones(2)}, tmp_path / "vae.safetensors")
    with pytest.raises(FileError, match=r"vae.safetensors: no motion tokens in it \(1 other .*Choose an FAE file"):
        load_fae(tmp_path / "vae.safetensors")


@pytest.mark.parametrize("layer", [0, 1])
def test_a_missing_layer_is_named(tmp_path, layer):
    path = make_fae(tmp_path / "kick.safetensors", layers=3)
    rewrite(path, lambda tensors: tensors.pop(TOKEN_KEY.format(layer)))
    with pytest.raises(FileError, match=rf"kick.safetensors: 1 keys missing \({TOKEN_KEY.format(layer)}\)"):
        load_fae(path)


def test_unexpected_keys_are_named(fae_file):
    rewrite(fae_file, lambda tensors: tensors.update({"optimizer.step": torch.ones(1)}))
    with pytest.raises(FileError, match=r"1 keys unexpected \(optimizer.step\)"):
        load_fae(fae_file)


def test_layers_that_differ_in_tokens_are_refused(fae_file):
    key = TOKEN_KEY.format(1)
    rewrite(fae_file, lambda tensors: tensors.update({key: tensors[key][:, :4].clone()}))
    with pytest.raises(FileError, match=r"another shape \(.*\[1, 6, 32\] expected, \[1, 4, 32\] found\)"):
        load_fae(fae_file)


@pytest.mark.parametrize("shape", [(6, 32), (2, 6, 32), (1, 1, 6, 32)])
def test_tokens_of_another_layout_are_refused(tmp_path, shape):
    save_file({TOKEN_KEY.format(0): torch.ones(shape)}, tmp_path / "kick.safetensors")
    with pytest.raises(FileError, match=r"motion tokens of shape \[1, tokens, width\] expected, \["):
        load_fae(tmp_path / "kick.safetensors")


def test_a_file_without_a_single_token_is_refused(tmp_path):
    save_file({TOKEN_KEY.format(0): torch.ones(1, 0, 32)}, tmp_path / "kick.safetensors")
    with pytest.raises(FileError, match="kick.safetensors: .*motion tokens"):
        load_fae(tmp_path / "kick.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tokens_that_are_not_numbers_are_refused(fae_file, value):
    rewrite(fae_file, lambda tensors: tensors[TOKEN_KEY.format(1)][0, 2].fill_(value))
    with pytest.raises(FileError, match="kick.safetensors: some motion tokens are not numbers.*train it again"):
        load_fae(fae_file)


@pytest.mark.parametrize(("layers", "dim"), [(3, 32), (1, 32), (2, 64)])
def test_an_fae_of_another_base_is_refused_with_both_sizes(tmp_path, base, layers, dim):
    fae = load_fae(make_fae(tmp_path / "kick.pt", layers=layers, dim=dim))
    with pytest.raises(FileError) as error:
        check_fae(fae, base.transformer)
    assert str(error.value).startswith(
        f"FAE 'kick': made for {layers} layers of width {dim} (cogvideox-i2v-{layers}x{dim}); the loaded base has "
        "2 layers of width 32 (cogvideox-i2v-2x32). Load the base"
    )


def test_the_base_that_a_file_names_is_said(base):
    fae = FAE(torch.ones(42, 3, 3072), name="kick", metadata={"base": "my-own-5b"})
    with pytest.raises(FileError, match="my-own-5b"):
        check_fae(fae, base.transformer)


@pytest.mark.parametrize("tokens", [1, 6, 226, 300])
def test_any_number_of_tokens_fits(tmp_path, base, tokens):
    check_fae(load_fae(make_fae(tmp_path / "kick.pt", tokens=tokens)), base.transformer)


def test_a_full_disk_leaves_the_old_fae(tmp_path, monkeypatch, fae_file):
    old = fae_file.read_bytes()

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_files.os, "replace", no_space)
    with pytest.raises(FileError, match="kick.safetensors: could not be saved.*No space left"):
        save_fae(FAE(torch.ones(2, 6, 32)), fae_file)
    assert os.listdir(tmp_path) == ["kick.safetensors"]
    assert fae_file.read_bytes() == old


def test_a_file_of_the_released_sizes_is_accepted(tmp_path, released_transformer):
    # 42 layers of 226 tokens of width 3072, as views of one number: the file stays small, its shapes are the real ones.
    tokens = torch.full((1,), 0.5, dtype=torch.bfloat16).expand(1, 226, 3072)
    torch.save({TOKEN_KEY.format(layer): tokens for layer in range(42)}, tmp_path / "Dance.pt")
    fae = load_fae(tmp_path / "Dance.pt")
    assert fae.tokens.shape == (42, 226, 3072)
    check_fae(fae, released_transformer)


def test_an_exported_fae_is_as_the_authors_code_reads_it(tmp_path):
    fae = FAE(torch.randn(3, 5, 8))
    path = save_released_fae(fae, tmp_path / "kick.pt")
    content = torch.load(path, weights_only=True)
    assert list(content) == [TOKEN_KEY.format(layer) for layer in range(3)]
    assert {tuple(value.shape) for value in content.values()} == {(1, 5, 8)}
    # A view would bring all layers along in every tensor.
    assert path.stat().st_size < 4000
    assert torch.equal(load_fae(path).tokens, fae.tokens.bfloat16())


@pytest.mark.parametrize("where", ["save", "replace"])
def test_a_full_disk_leaves_the_old_export(tmp_path, monkeypatch, where):
    path = save_released_fae(FAE(torch.ones(2, 6, 32)), tmp_path / "kick.pt")
    old = path.read_bytes()

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch if where == "save" else weight_files.os, where, no_space)
    with pytest.raises(FileError, match="kick.pt: could not be saved.*No space left"):
        save_released_fae(FAE(torch.zeros(2, 6, 32)), path)
    assert os.listdir(tmp_path) == ["kick.pt"]
    assert path.read_bytes() == old


def test_a_disk_that_fills_up_in_the_middle_of_a_pickle_leaves_the_old_export(tmp_path, monkeypatch):
    path = save_released_fae(FAE(torch.ones(2, 6, 32)), tmp_path / "kick.pt")
    old = path.read_bytes()

    def no_space(*_):
        # What torch's writer makes of a full disk.
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(FileError, match="kick.pt: could not be saved"):
        save_released_fae(FAE(torch.zeros(2, 6, 32)), path)
    assert os.listdir(tmp_path) == ["kick.pt"]
    assert path.read_bytes() == old


@pytest.mark.parametrize("wrapper", ["module.", "transformer.", "module.transformer.", "_orig_mod."])
def test_what_a_wrapped_model_puts_before_the_keys_is_taken_off(tmp_path, wrapper):
    tokens = torch.randn(2, 4, 8)
    torch.save({wrapper + TOKEN_KEY.format(i): tokens[i][None] for i in range(2)}, tmp_path / "f.pt")
    assert torch.equal(load_fae(tmp_path / "f.pt").tokens, tokens)


@pytest.mark.parametrize("layer", ["2000000000", "00"])
def test_an_impossible_layer_is_refused_before_a_table_is_made(tmp_path, layer):
    torch.save({TOKEN_KEY.format(layer): torch.zeros(1, 4, 8)}, tmp_path / "f.pt")
    with pytest.raises(FileError, match="f.pt: no motion tokens in it"):
        load_fae(tmp_path / "f.pt")


@pytest.mark.parametrize("tensor", [torch.zeros(1, 4, 8, dtype=torch.int64), torch.zeros(()), torch.zeros(1, 4, 0)])
def test_tokens_that_are_no_table_of_floating_point_are_refused(tmp_path, tensor):
    torch.save({TOKEN_KEY.format(0): tensor}, tmp_path / "f.pt")
    with pytest.raises(FileError, match="f.pt: motion tokens (of shape|in floating point)"):
        load_fae(tmp_path / "f.pt")
