"""MATLAB's tables, against what SciPy writes and reads."""

import io

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from flexiact_core.act_vae.mat_file import read_mat
from flexiact_core.errors import FileError

TABLES = {
    "x": np.random.default_rng(0).normal(size=(7, 13)) * 100,
    "small": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "few": np.array([[1, 2]], np.int16),
    "single": np.float32([[1.5], [2.5], [-3.5]]),
    "one": np.array([[42.0]]),
    "a_name_of_its_own": np.eye(3, dtype=np.int32),
    "action": "clean_and_jerk",
    "pose": "up",
}


@pytest.mark.parametrize("packed", [False, True])
def test_tables_and_texts_are_those_that_were_written(tmp_path, packed):
    others = {"cell": np.array(["a", 1], object), "structure": {"a": 1}, "complex": np.array([[1 + 2j, 3]])}
    savemat(tmp_path / "a.mat", TABLES | others, do_compression=packed)
    found, expected = read_mat(tmp_path / "a.mat"), loadmat(tmp_path / "a.mat", squeeze_me=True)
    assert found.keys() >= TABLES.keys() and not {"cell", "structure"} & found.keys()
    for name in TABLES:
        if isinstance(TABLES[name], str):
            assert found[name] == expected[name]
        else:
            assert np.array_equal(found[name], expected[name]) and found[name].shape == np.shape(expected[name])


def test_other_versions_and_files_are_refused(tmp_path):
    old = io.BytesIO()
    savemat(old, {"x": np.eye(2)}, format="4")
    for content in (old.getvalue(), b"MATLAB 7.3 MAT-file, an HDF5 file" + bytes(500), b"text" * 50):
        (tmp_path / "a.mat").write_bytes(content)
        with pytest.raises(FileError, match="a.mat: no label of Penn Action, a .mat file of version 5"):
            read_mat(tmp_path / "a.mat")


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    from flexiact_core.act_vae import mat_file

    savemat(tmp_path / "a.mat", {"x": np.zeros((1000, 1000))}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 50_000
    monkeypatch.setattr(mat_file, "MAX_BYTES", 1_000_000)
    with pytest.raises(FileError, match="a.mat: the file is damaged"):
        read_mat(tmp_path / "a.mat")
