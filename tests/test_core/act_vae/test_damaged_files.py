"""Damaged files of ACT-VAE and of its data end in a sentence or are read: never in another exception."""

import pytest
from act_vae_data import put_labels, put_list, put_poses, put_release
from damage import ends_in_sentences

from flexiact_core.act_vae.dataset import read_clips
from flexiact_core.act_vae.loading import load_act_vae
from flexiact_core.act_vae.mat_file import read_mat


@pytest.mark.parametrize("part", ["im_encode_content.pt", "im_encode_vae.pt"])
def test_a_damaged_part_of_the_release(tmp_path, part):
    folder = put_release(tmp_path / "release")
    good = (folder / part).read_bytes()
    assert ends_in_sentences(lambda _: load_act_vae(folder), folder / part, good, seed=part, count=150) > 30


def test_a_damaged_label(tmp_path):
    folder = put_labels(tmp_path / "labels")
    file = folder / "0001.mat"
    good = file.read_bytes()
    assert ends_in_sentences(read_mat, file, good, seed="mat") > 30
    assert ends_in_sentences(lambda _: read_clips(folder), file, good, seed="label", count=150) > 30


def test_a_damaged_list(tmp_path):
    file, _ = put_list(tmp_path)
    assert ends_in_sentences(read_clips, file, file.read_bytes(), seed="list") > 30


def test_damaged_poses(tmp_path):
    folder = put_poses(tmp_path / "poses")
    file = folder / "bow" / "00.json"
    assert ends_in_sentences(lambda _: read_clips(folder), file, file.read_bytes(), seed="poses") > 30
