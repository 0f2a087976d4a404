import errno
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexiact_core import weight_files
from flexiact_core.errors import FileError
from flexiact_core.weight_files import (
    check_keys,
    check_unchanged,
    map_tensors,
    mentions,
    read_metadata,
    read_shapes,
    read_tensor,
    read_tensors,
    stamp_large,
    without_wrapper,
    write_tensors,
)

ROOT = Path(__file__).resolve().parents[2]
TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(4, dtype=torch.bfloat16)}


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def write(path, tensors=TENSORS):
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(OrderedDict(tensors), path)
    return path


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.ckpt", "w.bin"])
def test_every_kind_of_file_gives_the_same_tensors(tmp_path, name):
    found = read_tensors(write(tmp_path / name))
    assert same(found, TENSORS)
    assert found["b.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_missing_file_is_named_with_its_folder(tmp_path, name):
    with pytest.raises(FileError, match=f"{name}: no such file in .*{tmp_path.name}.*Put it there"):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(FileError, match=f"{name}: the file is empty. Download it again"):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("kept", [1, 7, 60, -1, -40])
def test_a_file_cut_short_is_refused_wherever_it_was_cut(tmp_path, name, kept):
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FileError, match=rf"{name}: .*(Download it|Get the file) again"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_web_page_saved_as_weights_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_text("<!DOCTYPE html><html><body>404: not found</body></html>" * 20)
    with pytest.raises(FileError, match=f"{name}: this is a web page.*Download the file itself"):
        read_tensors(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickle_that_would_run_code_does_not_run_it(tmp_path, legacy):
    path, mark = tmp_path / "evil.pt", tmp_path / "code-has-run"
    torch.save({"a.weight": Payload(mark)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(FileError, match="evil.pt: .*run code.*not loaded.*safetensors version"):
        read_tensors(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the payload is no payload: this test proves nothing"


def test_a_plain_pickle_that_would_run_code_does_not_run_it(tmp_path):
    path, mark = tmp_path / "evil.bin", tmp_path / "code-has-run"
    path.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(FileError, match="evil.bin"):
        read_tensors(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), {"state": {"a": torch.ones(2)}}, {"step": 3}])
def test_a_pickle_of_anything_but_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(FileError, match="w.pt: a table of named tensors was expected, .* found"):
        read_tensors(tmp_path / "w.pt")


def test_odd_tensors_of_a_pickle_are_refused(tmp_path):
    odd = {
        "sparse": torch.zeros(1, 4).to_sparse(),
        "meta": torch.zeros(1, 4, device="meta"),
        "complex": torch.zeros(2, dtype=torch.complex64),
    }
    for name, tensor in odd.items():
        torch.save({"a.weight": tensor}, tmp_path / "w.pt")
        with pytest.raises(FileError, match="w.pt: a.weight is no plain table of numbers"):
            read_tensors(tmp_path / "w.pt"), name
    torch.save({5: torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(FileError, match="w.pt: a table of named tensors was expected"):
        read_tensors(tmp_path / "w.pt")


def test_a_view_that_would_fill_the_memory_is_refused_before_it_does(tmp_path):
    torch.save({"a.weight": torch.zeros(1).expand(1, 500_000_000, 8)}, tmp_path / "w.pt")
    with pytest.raises(FileError, match="w.pt: its tensors would take 16.0 GB, and the file has 0.0"):
        read_tensors(tmp_path / "w.pt")


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    with pytest.raises(FileError, match="w.pt: a packed archive"):
        read_tensors(tmp_path / "w.pt")
    assert not mentions(tmp_path / "w.pt", b"a.weight")


def test_a_huge_table_of_contents_is_refused_before_it_is_read(tmp_path):
    entry = {"dtype": "F32", "shape": [1, 0, 8], "data_offsets": [0, 0]}
    table = json.dumps({f"layer.{i}": entry for i in range(200_000)})
    (tmp_path / "w.safetensors").write_bytes(len(table).to_bytes(8, "little") + table.encode() + bytes(8))
    with pytest.raises(FileError, match="w.safetensors: its table of contents has 1. MB, too much for a model here"):
        read_tensors(tmp_path / "w.safetensors")


def test_number_formats_that_nothing_here_computes_in_are_refused(tmp_path):
    table = b'{"a.weight":{"dtype":"F4","shape":[4,8],"data_offsets":[0,16]}}'
    (tmp_path / "w.safetensors").write_bytes(len(table).to_bytes(8, "little") + table + bytes(16))
    with pytest.raises(FileError, match="w.safetensors: tensors in the number format F4 are not read here"):
        read_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_what_is_read_stays_as_it_is_when_the_file_is_overwritten_in_place(tmp_path, name):
    path = write(tmp_path / name)
    found = read_tensors(path)
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert same(found, TENSORS)
    with path.open("r+b") as file:
        file.truncate(1)
    assert same(found, TENSORS)
    assert path.name not in Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else True


def test_of_a_large_file_a_change_is_noticed_and_a_replacement_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "MAX_READ_BYTES", 100)
    path = write(tmp_path / "w.safetensors")
    assert same(map_tensors(path), TENSORS) and same(read_tensors(path), TENSORS)
    stamps = stamp_large([path])
    check_unchanged(stamps)
    path.rename(tmp_path / "old")
    check_unchanged(stamps)
    write(path, {"a.weight": torch.zeros(2, 3), "b.weight": torch.ones(4, dtype=torch.bfloat16)})
    with pytest.raises(FileError, match="w.safetensors: the file was changed after it was loaded.*Queue the prompt"):
        check_unchanged(stamps)
    assert stamp_large([write(tmp_path / "v.safetensors")]) != ()


def test_a_small_file_is_read_and_needs_no_stamp(tmp_path):
    path = write(tmp_path / "w.safetensors")
    tensors = map_tensors(path)
    path.write_bytes(b"")
    assert same(tensors, TENSORS)
    assert stamp_large([write(path)]) == ()


def test_a_wrapper_is_taken_off_all_keys_or_none():
    tensors = {"module.blocks.0.a": torch.zeros(1), "module.blocks.1.a": torch.ones(1)}
    assert list(without_wrapper(tensors, "blocks.")) == ["blocks.0.a", "blocks.1.a"]
    mixed = tensors | {"blocks.2.a": torch.ones(1)}
    assert list(without_wrapper(mixed, "blocks.")) == list(mixed)
    assert list(without_wrapper(tensors | {"x": torch.ones(1)}, "blocks.")) == [*tensors, "x"]


def test_a_file_of_another_kind_is_refused_with_the_kinds_that_work(tmp_path):
    (tmp_path / "w.gguf").write_bytes(b"GGUF")
    with pytest.raises(FileError, match=r"w.gguf: '.gguf' files are not read here. Use a .safetensors or .pt"):
        read_tensors(tmp_path / "w.gguf")


def test_shapes_are_read_without_the_tensors(tmp_path):
    assert read_shapes(write(tmp_path / "w.safetensors")) == {"a.weight": (2, 3), "b.weight": (4,)}


def test_shapes_of_a_pickle_are_refused_without_calling_it_damaged(tmp_path):
    with pytest.raises(FileError, match="w.pt: .*safetensors") as error:
        read_shapes(write(tmp_path / "w.pt"))
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_words_of_a_table_of_contents_are_found_without_running_a_pickle(tmp_path, name):
    path = write(tmp_path / name)
    assert mentions(path, b"a.weight")
    assert not mentions(path, b"motion_inversion_tokens")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_file_that_cannot_be_looked_into_is_listed_so_that_opening_it_explains(tmp_path, name):
    assert mentions(tmp_path / name, b"a.weight")
    if name.endswith(".pt"):
        (tmp_path / name).write_bytes(b"no zip at all")
        assert mentions(tmp_path / name, b"a.weight")


def test_written_tensors_and_metadata_come_back(tmp_path):
    path = write_tensors(TENSORS, tmp_path / "new folder" / "w.safetensors", {"caption": "a cat"})
    assert same(read_tensors(path), TENSORS)
    assert read_metadata(path) == {"caption": "a cat"}
    assert os.listdir(path.parent) == ["w.safetensors"]


def test_pickles_and_files_without_metadata_have_none(tmp_path):
    assert read_metadata(write(tmp_path / "w.pt")) == {}
    assert read_metadata(write(tmp_path / "w.safetensors")) == {}


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["save_file", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch, where):
    path = write_tensors(TENSORS, tmp_path / "w.safetensors", {"run": "first"})
    monkeypatch.setattr(weight_files if where == "save_file" else weight_files.os, where, no_space)
    with pytest.raises(FileError, match="w.safetensors: could not be saved in .*No space left.*Free some disk"):
        write_tensors({"a": torch.zeros(1)}, path, {"run": "second"})
    assert os.listdir(tmp_path) == ["w.safetensors"]
    assert same(load_file(path), TENSORS)
    assert read_metadata(path) == {"run": "first"}


def test_a_write_that_is_interrupted_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = write_tensors(TENSORS, tmp_path / "w.safetensors", {})

    def interrupted(tensors, temporary, metadata):
        with open(temporary, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(weight_files, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_tensors({"a": torch.zeros(1)}, path, {})
    assert os.listdir(tmp_path) == ["w.safetensors"]
    assert same(load_file(path), TENSORS)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(FileError, match="w.safetensors: could not be saved in .*taken.*can be written"):
        write_tensors(TENSORS, tmp_path / "taken" / "w.safetensors", {})


def test_saved_tensors_may_share_memory_or_be_strided(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    path = write_tensors({"t": whole.T, "row": whole[1:2]}, tmp_path / "w.safetensors", {})
    assert same(read_tensors(path), {"t": whole.T, "row": whole[1:2]})


def checkpoint(file, legacy=False):
    """A training checkpoint: weights, and an optimizer's state that is far larger."""
    content = {
        "state_dict": {"weight": torch.arange(4.0)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(24_000_000)}}},
        "scaler": {"scale": 65536.0},
        "step": 640000,
    }
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file


def test_of_a_training_checkpoint_the_weights_alone_enter_memory(tmp_path):
    file = checkpoint(tmp_path / "training.pth")
    code = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from flexiact_core.weight_files import read_tensors\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "tensors = read_tensors(Path(sys.argv[1]), inside=('state_dict',))\n"
        "assert tensors['weight'].tolist() == [0, 1, 2, 3] and len(tensors) == 1\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, cwd=ROOT, check=True)
    assert file.stat().st_size > 90e6
    assert int(run.stdout) < 30_000, "kilobytes"


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_inside_a_training_checkpoint_are_found_in_both_formats(tmp_path, legacy):
    file = tmp_path / "training.pt"
    torch.save({"a": TENSORS, "step": 3}, file, _use_new_zipfile_serialization=not legacy)
    read = read_tensors(file, inside=("state_dict", "a"))
    assert same(read, TENSORS)
    with pytest.raises(FileError, match="a table of named tensors was expected"):
        read_tensors(file)


def test_an_old_file_too_large_for_memory_is_refused_with_its_size_before_it_is_read(tmp_path):
    file = checkpoint(tmp_path / "old.pth", legacy=True)
    with pytest.raises(FileError, match=r"old.pth: this file of 0.1 GB .* only 0.0 GB of memory are free"):
        read_tensors(file, inside=("state_dict",), max_bytes=10_000_000)


def test_a_file_of_one_tensor_is_read_and_nothing_else(tmp_path):
    torch.save(torch.arange(3.0), tmp_path / "one.pt")
    torch.save(TENSORS, tmp_path / "many.pt")
    assert read_tensor(tmp_path / "one.pt").tolist() == [0, 1, 2]
    with pytest.raises(FileError, match="many.pt: one tensor was expected, .*ict found"):
        read_tensor(tmp_path / "many.pt")


def test_key_complaints_name_the_first_few_and_count_the_rest():
    expected = {f"k{i}": (1,) for i in range(9)} | {"shape": (2, 3)}
    found = {"x": (1,), "shape": (3, 2)}
    with pytest.raises(FileError) as error:
        check_keys("w.pt", found, expected, "The way out.")
    assert str(error.value) == (
        "w.pt: 9 keys missing (k0, k1, k2, ...); 1 keys unexpected (x); "
        "1 tensors of another shape (shape: [2, 3] expected, [3, 2] found). The way out."
    )


def test_equal_keys_pass():
    check_keys("w.pt", {"a": (1, 2)}, {"a": (1, 2)}, "")


def test_a_file_written_can_be_read_by_whoever_may_read_the_folder(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    written = write_tensors({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {})
    assert written.stat().st_mode == plain.stat().st_mode


def test_a_file_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    """A power cut between the two would leave a name without a content."""
    import os

    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("synced") or sync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("renamed") or replace(*paths))
    write_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors", {})
    assert done[:2] == ["synced", "renamed"]


def test_what_a_killed_save_left_is_removed_by_the_next_of_that_name(tmp_path):
    ours, others = tmp_path / ".a-0123abcd.part", [tmp_path / ".a-b-0123abcd.part", tmp_path / ".a-notes.part"]
    for file in (ours, *others):
        file.write_bytes(b"half")
    write_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors", {})
    assert not ours.exists() and all(file.exists() for file in others)


def test_a_checkpoint_that_was_read_can_be_replaced_where_mapped_files_cannot(tmp_path):
    path = write_tensors({"a": torch.ones(1_000_000)}, tmp_path / "checkpoint.safetensors", {})
    held = read_tensors(path)
    maps = Path("/proc/self/maps")
    assert held and (not maps.exists() or path.name not in maps.read_text())


def test_a_save_that_fails_names_no_place_outside_its_folder(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileError, match="could not be saved in the folder file") as refused:
        write_tensors({"a": torch.ones(2)}, tmp_path / "file" / "a.safetensors", {})
    assert str(tmp_path) not in str(refused.value)
