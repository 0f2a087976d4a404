import io
import os
import sys
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from flexiact_core import weight_files
from flexiact_core.file_lists import mentions, walk_files

WORDS = b"motion_inversion_tokens"


def fae(path):
    save_file({"blocks.0.motion_inversion_tokens": torch.zeros(1, 2, 4)}, path)
    return path


def listed(root, **options):
    return [file.relative_to(root).as_posix() for _, _, files in walk_files(root, **options) for file in files]


def odd_zip(flag=0, method=0, broken=False):
    """A .pt that zip readers stumble over: encrypted, of an unknown compression, or with broken data."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"motion" * 100)
    content = bytearray(content.getvalue())
    for signature, flag_at, method_at in ((b"PK\x03\x04", 6, 8), (b"PK\x01\x02", 8, 10)):
        at = content.find(signature)
        content[at + flag_at] |= flag
        content[at + method_at] = method or content[at + method_at]
    if broken:
        content[46:66] = b"\xff" * 20
    return bytes(content)


ODD = {
    "a link to nothing": lambda root: (root / "odd.safetensors").symlink_to(root / "nowhere"),
    "a link to nothing, .pt": lambda root: (root / "odd.pt").symlink_to(root / "nowhere"),
    "a link to itself": lambda root: (root / "odd.safetensors").symlink_to("odd.safetensors"),
    "a folder named like a file": lambda root: (root / "odd.safetensors").mkdir(),
    "a folder that links to its parent": lambda root: (root / "odd").symlink_to(root),
    "a pipe": lambda root: os.mkfifo(root / "odd.safetensors"),
    "a link to a device": lambda root: (root / "odd.safetensors").symlink_to("/dev/zero"),
    "a name that is no text": lambda root: open(os.fsencode(root) + b"/odd\xff.safetensors", "wb").close(),
    "an empty file": lambda root: (root / "odd.safetensors").write_bytes(b""),
    "a few bytes": lambda root: (root / "odd.safetensors").write_bytes(b"1234567"),
    "a text": lambda root: (root / "odd.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
    "a huge table of contents": lambda root: (root / "odd.safetensors").write_bytes(b"\xff" * 2000),
    "an encrypted .pt": lambda root: (root / "odd.pt").write_bytes(odd_zip(flag=1)),
    "a .pt of unknown compression": lambda root: (root / "odd.pt").write_bytes(odd_zip(method=99)),
    "a .pt with broken data": lambda root: (root / "odd.pt").write_bytes(odd_zip(broken=True)),
}


@pytest.mark.skipif(sys.platform == "win32", reason="makes files that Windows does not have")
@pytest.mark.parametrize("odd", ODD)
def test_one_odd_file_leaves_the_list_whole(tmp_path, odd):
    fae(tmp_path / "good.safetensors")
    (tmp_path / "deep").mkdir()
    fae(tmp_path / "deep" / "too.safetensors")
    ODD[odd](tmp_path)
    files = [file for _, _, files in walk_files(tmp_path) for file in files]
    names = [file.name for file in files if mentions(file, WORDS)]
    assert names.count("good.safetensors") == 1 and names.count("too.safetensors") == 1
    assert all(name.encode() for name in names)


def test_what_starts_with_a_dot_and_what_is_to_be_left_out_is_not_there(tmp_path):
    for place in ("a", "training/clips", "deep/training", ".cache"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "x.txt").write_text("x")
    (tmp_path / "a" / "._x.txt").write_text("x")
    assert listed(tmp_path, leave_out=("training",)) == ["a/x.txt", "deep/training/x.txt"]


def test_a_folder_that_is_not_there_has_no_files(tmp_path):
    assert listed(tmp_path / "gone") == []


def test_a_file_is_looked_into_again_when_it_changes_and_only_then(tmp_path, monkeypatch):
    looked, look = [], weight_files.mentions
    monkeypatch.setattr(weight_files, "mentions", lambda path, words: looked.append(path) or look(path, words))
    file = tmp_path / "a.safetensors"
    save_file({"other": torch.zeros(2)}, file)
    assert [mentions(file, WORDS) for _ in range(3)] == [False] * 3
    assert len(looked) == 1
    fae(file)
    os.utime(file, ns=(1, 1))
    assert [mentions(file, WORDS) for _ in range(3)] == [True] * 3
    assert len(looked) == 2


def test_files_that_are_known_cost_two_looks_each_and_are_not_opened(tmp_path, monkeypatch):
    first = fae(tmp_path / "0.safetensors")
    for index in range(1, 40):
        os.link(first, tmp_path / f"{index}.safetensors")

    def find():
        return [file for _, _, files in walk_files(tmp_path) for file in files if mentions(file, WORDS)]

    assert len(find()) == 40
    looks, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: looks.append(path) or stat(path, **options))
    monkeypatch.setattr(weight_files, "mentions", None)
    assert len(find()) == 40
    assert sum(str(path).endswith(".safetensors") for path in looks) == 2 * 40 and len(looks) < 90
