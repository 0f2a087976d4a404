"""The release's files open as they are, and what does not belong together is said."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from flexiact_core.act_vae.loading import (
    ACTVAE,
    CRITIC,
    GENERATOR,
    LATENTS,
    POSES,
    find_models,
    kind_of,
    load_act_vae,
    make_model,
    save_act_vae,
    states_of,
)
from flexiact_core.act_vae.model import PENN_ACTIONS, RELEASED_LATENT, ActionPoses
from flexiact_core.act_vae.pose_to_image import PoseCritic, PoseToImage
from flexiact_core.errors import FileError


def same_states(first: ACTVAE, parts) -> None:
    for part, state in states_of(first).items():
        for key, value in state.items():
            assert_close(value, parts[part][key], rtol=0, atol=0)


def test_the_released_keys_fit_networks_of_the_released_size(release_keys):
    """Strict both ways, on the meta device: no key more or less, and no other shape."""
    with torch.device("meta"):
        predictor = ActionPoses(len(PENN_ACTIONS), RELEASED_LATENT)
        networks = {
            POSES: predictor.pose_lstm, LATENTS: predictor.latent_lstm, GENERATOR: PoseToImage(), CRITIC: PoseCritic()
        }  # fmt: skip
        for part, network in networks.items():
            prefix = "rnn." if part.startswith("im_") else ""
            released = release_keys[part if part in release_keys else part.replace("im_encode", "image_enc")]
            state = {key.removeprefix(prefix): torch.empty(shape) for key, shape in released.items()}
            network.load_state_dict(state, strict=True, assign=True)
    assert sum(value.numel() for value in predictor.parameters()) == 6_502_808
    assert sum(value.numel() for value in networks[GENERATOR].parameters()) == 41_352_964
    assert sum(value.numel() for value in networks[CRITIC].parameters()) == 15_762_304


def test_a_released_folder_loads_with_all_that_lies_in_it(released_folder, small_parts):
    model = load_act_vae(released_folder)
    same_states(model, small_parts)
    assert (model.actions, model.steps, model.predictor.latent) == (PENN_ACTIONS, 4, 8)
    assert model.generator is not None and model.critic is None and model.judge is None
    assert not any(weight.requires_grad for weight in model.predictor.parameters())


@pytest.mark.parametrize("part", ["im_encode_content", "im_encode_vae", "generator"])
def test_any_file_of_the_release_finds_the_others(released_folder, small_parts, part):
    same_states(load_act_vae(released_folder / f"{part}.pt"), small_parts)


def test_files_in_the_format_of_old_torch_versions_load(released_folder, small_parts):
    for part in ("im_encode_content", "im_encode_vae"):
        path = released_folder / f"{part}.pt"
        torch.save({"a": small_parts[part]}, path, _use_new_zipfile_serialization=False)
    same_states(load_act_vae(released_folder), small_parts)


def test_a_training_checkpoint_finds_the_one_of_its_iteration(small_parts, tmp_path):
    """The authors' snapshots: NNNN_im_encode_content_IIIIIIII.pt, several in a folder."""
    for iteration in ("00001000", "00002000"):
        for part in (POSES, LATENTS, GENERATOR, CRITIC):
            state = {key: value + (iteration == "00001000") for key, value in small_parts[part].items()}
            torch.save({"a": state}, tmp_path / f"0007_{part}_{iteration}.pt")
    model = load_act_vae(tmp_path / "0007_im_encode_content_00002000.pt")
    same_states(model, small_parts)
    assert model.critic is not None


def test_one_file_of_ours_holds_all_and_comes_back(small_parts, tmp_path):
    first = make_model(small_parts, actions=tuple("abcdefghi"), steps=8, margin=0.35)
    path = save_act_vae(first, tmp_path / "mine.safetensors")
    second = load_act_vae(path)
    same_states(second, small_parts)
    assert (second.actions, second.steps, second.margin, second.name) == (tuple("abcdefghi"), 8, 0.35, "mine")
    assert second.generator is not None and second.critic is not None


def test_what_is_loaded_does_not_hang_on_its_file(released_folder, small_parts):
    model = load_act_vae(released_folder)
    for path in released_folder.iterdir():
        path.write_bytes(b"\0" * path.stat().st_size)
    same_states(model, small_parts)


def test_models_are_listed_by_what_they_hold(released_folder, small_parts, tmp_path):
    save_act_vae(make_model(small_parts), tmp_path / "ours.safetensors")
    save_file({"learned/pose_lstm.weight_ih_l0": torch.zeros(2)}, tmp_path / "checkpoint.safetensors")
    (tmp_path / "run").mkdir()
    for iteration in range(3):
        for part in (POSES, LATENTS):
            torch.save({"a": small_parts[part]}, tmp_path / "run" / f"0001_{part}_{iteration}.pt")
    (tmp_path / ".hidden.pt").write_bytes(b"x")
    found = find_models(tmp_path)
    assert {"ours.safetensors", "pretrain"} <= set(found)
    assert {name for name in found if name.startswith("run/")} == {
        f"run/0001_{part}_{iteration}.pt" for part in (POSES, LATENTS) for iteration in range(3)
    }
    assert set(found) - {"ours.safetensors", "pretrain"} == {name for name in found if name.startswith("run/")}
    assert load_act_vae(found["pretrain"]).name == "pretrain"


def test_a_folder_that_is_not_there_lists_nothing(tmp_path):
    assert find_models(tmp_path / "none") == {}


def test_one_file_without_its_other_names_what_is_missing(released_folder):
    (released_folder / "im_encode_vae.pt").unlink()
    with pytest.raises(FileError, match=r"no im_encode_vae beside it .*im_encode_content \[104, 43\].*8 z"):
        load_act_vae(released_folder)
    (released_folder / "im_encode_content.pt").unlink()
    with pytest.raises(FileError, match="no im_encode_content beside it"):
        load_act_vae(released_folder)


def test_two_files_of_one_kind_are_both_named(released_folder, small_parts):
    torch.save({"a": small_parts[POSES]}, released_folder / "im_encode_content_old.pt")
    with pytest.raises(FileError, match=r"im_encode_content_old.pt and im_encode_content.pt are both .*\[104, 43\]"):
        load_act_vae(released_folder)


def test_files_of_two_trainings_are_told_apart(released_folder, small_parts):
    from flexiact_core.act_vae.fit import start_predictor

    other = states_of(ACTVAE(start_predictor(9, 4, torch.Generator()), PENN_ACTIONS))
    torch.save({"a": other[LATENTS]}, released_folder / "im_encode_vae.pt")
    with pytest.raises(FileError, match="takes 39 numbers and im_encode_content 43"):
        load_act_vae(released_folder)


def test_an_image_generator_of_other_actions_is_refused(released_folder):
    torch.save({"a": PoseToImage(5, 4, 1).state_dict()}, released_folder / "generator.pt")
    with pytest.raises(FileError, match="knows 5 actions and the pose predictor 9"):
        load_act_vae(released_folder)


def test_a_model_of_another_number_of_actions_has_numbered_names(small_parts):
    from flexiact_core.act_vae.fit import start_predictor

    states = states_of(ACTVAE(start_predictor(3, 4, torch.Generator()), ()))
    assert make_model(states).actions == ("action_0", "action_1", "action_2")
    with pytest.raises(FileError, match="2 names for 3 actions"):
        make_model(states, actions=("a", "b"))


@pytest.mark.parametrize(
    "keys",
    [
        ["transformer_blocks.0.attn1.to_q.weight"],
        ["tokens"],
        ["conv_in.weight", "down_blocks.0.temp_convs.0.conv1.2.weight"],
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_of_other_models_are_refused_by_their_keys(tmp_path, keys, suffix):
    path = tmp_path / f"other{suffix}"
    tensors = {key: torch.zeros(2) for key in keys}
    if suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    with pytest.raises(FileError, match=f"no file of ACT-VAE; its keys are {keys[0]}"):
        load_act_vae(path)


class Attack:
    def __reduce__(self):
        return Path.touch, (Path("attacked"),)


def test_a_pickle_that_runs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "im_encode_content.pt").write_bytes(pickle.dumps({"a": Attack()}))
    torch.save({"a": Attack()}, tmp_path / "im_encode_vae.pt")
    for name in ("im_encode_content.pt", "im_encode_vae.pt"):
        with pytest.raises(FileError, match="asks to run code"):
            load_act_vae(tmp_path / name)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("length", [0, 100, 4000])
def test_a_cut_or_empty_file_is_said(released_folder, length):
    path = released_folder / "im_encode_content.pt"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FileError, match="im_encode_content.pt: .*(empty|damaged|run code)"):
        load_act_vae(released_folder)


def test_a_key_more_or_less_is_named(released_folder, small_parts):
    state = dict(small_parts[POSES]) | {"rnn.weight_ih_l1": torch.zeros(1)}
    torch.save({"a": state}, released_folder / "im_encode_content.pt")
    with pytest.raises(FileError, match=r"1 keys unexpected \(pose_lstm.weight_ih_l1\)"):
        load_act_vae(released_folder)


def test_the_kind_of_a_state_is_told_by_shapes(small_parts):
    assert {part: kind_of("x", state) for part, state in small_parts.items()} == {part: part for part in small_parts}


def test_a_full_disk_leaves_the_old_file(small_parts, tmp_path, monkeypatch):
    from flexiact_core import weight_files

    model = make_model(small_parts)
    path = save_act_vae(model, tmp_path / "mine.safetensors")
    before = path.read_bytes()

    def no_room(tensors, name, metadata=None):
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_files, "save_file", no_room)
    with pytest.raises(FileError, match="disk space"):
        save_act_vae(model, path)
    assert path.read_bytes() == before and [child.name for child in tmp_path.iterdir()] == ["mine.safetensors"]
