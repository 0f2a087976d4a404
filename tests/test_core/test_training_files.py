import json
import shutil
from collections import namedtuple

import pytest
import torch

from flexiact_core.errors import FileError
from flexiact_core.training_files import (
    MAX_NAME_BYTES,
    check_can_save,
    checkpoint_path,
    is_lost,
    is_unfinished,
    plain_name,
    record_result,
    result_path,
)
from flexiact_core.weight_files import write_tensors

OURS, OTHERS = "a" * 64, "b" * 64
SETTINGS = {"learning_rate": 0.01, "batch_size": 1, "seed": 3}


def save(root, training=OURS, name="mine", endings=()):
    """A result as a training saves it."""
    path = result_path(root, "fae", name, training)
    write_tensors({"x": torch.zeros(1)}, path, {"training": training})
    files = [path, *(path.with_suffix(ending) for ending in endings)]
    for file in files[1:]:
        file.write_bytes(b"of this training")
    record_result(root, name, training, files, SETTINGS)
    return path


def checkpoint(root, steps, name="mine", training=OURS, settings=SETTINGS):
    metadata = {"name": name, "steps_done": str(steps), "settings": json.dumps(settings)}
    return write_tensors({}, checkpoint_path(root, name, training), metadata)


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("jump", "jump"), ("a/b\\c:d", "a_b_c_d"), ("..", "action"), (" .hidden ", "hidden"), ("", "action"),
        ("CON", "_CON"), ("nul.txt", "_nul.txt"), ("Com1", "_Com1"), ("console", "console"),
        ("a\0b\n", "a_b_"), ("a\ud83d", "a_"),
    ],
)  # fmt: skip
def test_a_name_keeps_its_letters_and_loses_what_a_disk_may_refuse(typed, plain):
    assert plain_name(typed) == plain


@pytest.mark.parametrize("name", ["x" * 228, "x" * 300, "\N{CJK UNIFIED IDEOGRAPH-821E}" * 90], ids=len)
def test_a_long_name_leaves_room_for_what_is_added_to_it(tmp_path, name):
    plain = plain_name(name)
    assert 0 < len(plain.encode()) <= MAX_NAME_BYTES
    path = checkpoint(tmp_path, 3, name)
    assert len(f".{path.stem}-12345678.part".encode()) <= 143
    assert save(tmp_path, name=name).is_file()


def test_a_training_saves_under_its_name_again_and_again(tmp_path):
    assert [save(tmp_path, endings=(".mp4", ".pt")).name for _ in range(3)] == ["mine.safetensors"] * 3


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".mp4"])
@pytest.mark.parametrize("kind", ["file", "empty", "folder", "broken link"])
def test_what_a_user_has_under_the_name_is_never_overwritten(tmp_path, ending, kind):
    file = tmp_path / "fae" / f"mine{ending}"
    file.parent.mkdir()
    {
        "file": lambda: file.write_bytes(b"the user's"),
        "empty": lambda: file.write_bytes(b""),
        "folder": file.mkdir,
        "broken link": lambda: file.symlink_to(tmp_path / "gone"),
    }[kind]()
    assert save(tmp_path).name == "mine_2.safetensors"
    assert save(tmp_path).name == "mine_2.safetensors"


def test_a_clip_put_beside_a_result_later_is_not_overwritten_either(tmp_path):
    path = save(tmp_path, endings=(".mp4",))
    path.with_suffix(".pt").write_bytes(b"the user's")
    assert save(tmp_path).name == "mine_2.safetensors"
    path.with_suffix(".pt").unlink()
    path.with_suffix(".mp4").write_bytes(b"the user's own, in full size")
    assert save(tmp_path).name == "mine_2.safetensors"


def test_another_training_of_the_same_name_gets_a_number(tmp_path):
    assert [save(tmp_path, training).stem for training in (OURS, OTHERS, OURS, OTHERS)] == ["mine", "mine_2"] * 2


def test_a_training_is_unfinished_until_its_own_checkpoint_has_all_steps(tmp_path):
    assert not is_unfinished(tmp_path, "mine", 9, SETTINGS)
    checkpoint(tmp_path, 6)
    assert is_unfinished(tmp_path, "mine", 7, SETTINGS)
    assert not is_unfinished(tmp_path, "mine", 6, SETTINGS)


def test_other_trainings_do_not_make_a_finished_one_run_again(tmp_path):
    checkpoint(tmp_path, 6)
    checkpoint(tmp_path, 3, training=OTHERS, settings=SETTINGS | {"seed": 4})
    checkpoint(tmp_path, 3, name="mine-too", training=OTHERS)
    checkpoint(tmp_path, 3, name="mine:", training=OTHERS)
    assert not is_unfinished(tmp_path, "mine", 6, SETTINGS)


def test_a_checkpoint_of_an_earlier_release_is_known_by_its_name(tmp_path):
    write_tensors({}, checkpoint_path(tmp_path, "mine", OURS), {"name": "mine", "steps_done": "3"})
    assert is_unfinished(tmp_path, "mine", 6, SETTINGS)


def test_a_deleted_result_is_missed_by_its_own_training_alone(tmp_path):
    path = save(tmp_path, endings=(".mp4",))
    path.with_suffix(".mp4").unlink()
    assert not is_lost(tmp_path, "mine", SETTINGS)
    path.unlink()
    assert is_lost(tmp_path, "mine", SETTINGS)
    assert not is_lost(tmp_path, "mine", SETTINGS | {"seed": 4})
    assert not is_lost(tmp_path, "other", SETTINGS)
    save(tmp_path)
    assert not is_lost(tmp_path, "mine", SETTINGS)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": 3}', b"\xff\xfe", b'{"name": "mine", "files": {}}'])
def test_damaged_notes_and_checkpoints_stop_no_list(tmp_path, content):
    folder = tmp_path / "training"
    folder.mkdir()
    for ending in (".json", ".safetensors"):
        (folder / f"mine-{OURS[:12]}{ending}").write_bytes(content)
    assert not is_unfinished(tmp_path, "mine", 6, SETTINGS)
    assert not is_lost(tmp_path, "mine", SETTINGS)
    assert result_path(tmp_path, "fae", "mine", OURS).name == "mine.safetensors"


def test_a_folder_that_cannot_be_written_is_said_with_its_name_alone(tmp_path):
    (tmp_path / "training").write_text("a file where the folder would be")
    for folder in ("training", "training/deeper"):
        with pytest.raises(FileError, match="nothing can be saved in this folder") as refused:
            check_can_save(tmp_path / folder)
        assert str(tmp_path) not in str(refused.value)


def test_too_full_a_disk_is_said_with_both_figures(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 3_000_000, 3_000_000))
    check_can_save(tmp_path, 2_900_000)
    with pytest.raises(FileError, match="5.0 MB will be saved in this folder, 3.0 MB are free"):
        check_can_save(tmp_path, 5_000_000)
    assert list(tmp_path.iterdir()) == []
