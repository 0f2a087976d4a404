"""Damaged files of every kind that is read end in a sentence or are read: never in another exception."""

import json
import random
import shutil

import pytest
import torch
from damage import MUTATIONS, ends_in_sentences, mutate
from lora_layouts import in_layout
from safetensors.torch import save_file
from small_models import make_fae, make_refadapter, write_spiece_model

from flexiact_core.cogvideox.loading import load_base
from flexiact_core.cogvideox.loras import load_lora
from flexiact_core.cogvideox.tokenizer import load_tokenizer
from flexiact_core.errors import FileError
from flexiact_core.flexiact.fae import load_fae
from flexiact_core.flexiact.refadapter import load_refadapter
from flexiact_core.model_folders import read_config
from flexiact_core.training import load_state, save_state
from flexiact_core.weight_files import mentions, read_metadata, read_shapes, read_tensors

FOLDER_MUTATIONS = 100


def state_file(file):
    from flexiact_core.training import TrainingState

    numbers = torch.arange(40.0)
    state = TrainingState(
        {"tokens": numbers}, {"exp_avg/tokens": numbers + 1, "exp_avg_sq/tokens": numbers + 2},
        torch.Generator().get_state(), torch.zeros(3, dtype=torch.float64),
    )  # fmt: skip
    return save_state(state, file, {"steps_done": "3"})


def old_pickle(make):
    def write(file):
        tensors = torch.load(make(file.with_suffix(".pt")), weights_only=True)
        torch.save(tensors, file, _use_new_zipfile_serialization=False)
        return file

    return write


def kohya_file(file):
    save_file(in_layout("kohya", load_refadapter(make_refadapter(file))), file)
    return file


READERS = {
    "an action, .safetensors": ("f.safetensors", make_fae, load_fae),
    "an action, .pt": ("f.pt", make_fae, load_fae),
    "an action, older .pth": ("f.pth", old_pickle(make_fae), load_fae),
    "an adapter, .safetensors": ("r.safetensors", make_refadapter, load_refadapter),
    "an adapter, .pt": ("r.pt", make_refadapter, load_refadapter),
    "a checkpoint of a training": ("c.safetensors", state_file, load_state),
    "tensors": ("t.bin", old_pickle(make_fae), read_tensors),
    "metadata": ("m.safetensors", make_fae, read_metadata),
    "shapes": ("s.safetensors", make_fae, read_shapes),
    "a LoRA, kohya": ("k.safetensors", kohya_file, load_lora),
    "a LoRA, .pt": ("k.pt", make_refadapter, load_lora),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_weight_file_ends_in_a_sentence(tmp_path, kind):
    name, make, read = READERS[kind]
    good = make(tmp_path / name).read_bytes()
    assert ends_in_sentences(read, tmp_path / name, good, seed=kind) > MUTATIONS / 10


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_damaged_weight_file_never_breaks_a_list(tmp_path, suffix):
    good, dice = make_fae(tmp_path / f"f{suffix}").read_bytes(), random.Random(suffix)
    for _ in range(MUTATIONS):
        (tmp_path / f"f{suffix}").write_bytes(mutate(good, dice))
        assert mentions(tmp_path / f"f{suffix}", b"motion_inversion_tokens") in (True, False)


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.json"])
def test_a_damaged_vocabulary_ends_in_a_sentence_or_still_cuts_prompts(tmp_path, name):
    from flexiact_core.world.shipped import base_folder

    folder = tmp_path / "base" / "tokenizer"
    folder.mkdir(parents=True)
    if name == "spiece.model":
        write_spiece_model(folder / name)
    else:
        shutil.copy(base_folder() / "tokenizer" / name, folder / name)

    def read(file):
        load_tokenizer(file.parent)("a cat dances")

    assert ends_in_sentences(read, folder / name, (folder / name).read_bytes(), seed=name) > 3


def test_a_damaged_config_ends_in_a_sentence(small_base, tmp_path):
    good = (small_base / "transformer" / "config.json").read_bytes()
    assert ends_in_sentences(read_config, tmp_path / "config.json", good, seed=1) > MUTATIONS / 10


ODD_VALUES = (
    None, True, -1, 0, 10**9, 10**30, 1e308, "", "x", [], {}, [[]], [None], {"a": {}}, "../..", "\x00", 0.5, [1] * 1000
)  # fmt: skip


def change_value(content, dice):
    """A JSON table with one or two of its values replaced, taken out or put in."""
    table = json.loads(content)
    for _ in range(dice.randrange(1, 3)):
        key = dice.choice(list(table) or ["x"])
        action = dice.choice(["replace", "replace", "remove", "add"])
        if action == "remove":
            table.pop(key, None)
        else:
            table[key if action == "replace" else "extra"] = dice.choice(ODD_VALUES)
    return json.dumps(table).encode()


def test_a_damaged_model_folder_ends_in_a_sentence_or_loads(small_base, tmp_path):
    folder, dice, refused = shutil.copytree(small_base, tmp_path / "my-base"), random.Random(0), 0
    # No damage to the transformer's values can be seen; what is read before them can.
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")
    for number in range(FOLDER_MUTATIONS):
        file = dice.choice(files)
        good = file.read_bytes()
        is_table = file.suffix == ".json" and dice.random() < 0.7
        file.write_bytes(change_value(good, dice) if is_table else mutate(good, dice))
        try:
            load_base(folder, folder, torch.float32)
        except FileError as error:
            refused += 1
            assert str(tmp_path) not in str(error)
        except Exception as error:
            raise AssertionError(f"change {number}, {file.relative_to(folder)}: {error!r}") from error
        file.write_bytes(good)
    assert FOLDER_MUTATIONS / 4 < refused < FOLDER_MUTATIONS


def test_a_wholly_random_file_is_refused(tmp_path):
    dice = random.Random(0)
    for name in ("f.safetensors", "f.pt", "f.bin"):
        for size in (1, 7, 8, 9, 100, 5000):
            (tmp_path / name).write_bytes(dice.randbytes(size))
            with pytest.raises(FileError):
                load_fae(tmp_path / name)


def test_the_seed_of_the_damage_is_fixed():
    assert mutate(bytes(100), random.Random(0)) == mutate(bytes(100), random.Random(0))
