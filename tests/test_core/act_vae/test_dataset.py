"""Clips from the authors' list, from Penn Action's labels, and from folders of poses."""

from __future__ import annotations

import json

import pytest
import torch
from act_vae_data import figures_px, put_labels, put_list, put_poses
from torch.testing import assert_close

from flexiact_core.act_vae.dataset import draw_clips, mirror_poses, read_clips, split_clips
from flexiact_core.act_vae.letterbox import to_box
from flexiact_core.act_vae.released_list import find_image, read_rows
from flexiact_core.act_vae.training_data import figures_data, read_training_data, split_names
from flexiact_core.errors import FileError


def test_a_row_of_the_list_is_read_field_by_field(tmp_path):
    path, pictures = put_list(tmp_path)
    points, _ = figures_px(6, 6)
    row = read_rows(path)[1]
    assert (row.name, row.action, row.video) == ("pullup", 1, "0001")
    # The source's joints stand last in the line, and first here.
    assert_close(row.poses, points[1], atol=1e-3, rtol=0)
    assert row.box.tolist() == [5, 10, 195, 190]
    assert_close(row.people[0], torch.cat([points[1, 1].amin(0), points[1, 1].amax(0)]), atol=1e-3, rtol=0)
    assert find_image(pictures, row.images[2]) == pictures / "0001" / "000002.jpg"
    assert find_image(tmp_path, row.images[2]) == pictures / "0001" / "000002.jpg"
    with pytest.raises(FileError, match="a picture of the list is not in this folder"):
        find_image(tmp_path / "elsewhere", row.images[0])


def test_the_list_gives_clips_in_its_own_box_and_says_which_do_not_move(tmp_path):
    path, _ = put_list(tmp_path)
    clips = read_clips(path)
    points, _ = figures_px(6, 6)
    assert (clips.names, clips.steps) == (("tennis_serve", "pullup", "clean_and_jerk"), 4)
    assert clips.action.tolist() == [0, 1, 2, 0, 1, 2]
    expected = to_box(points[0], torch.tensor([5.0, 10.0, 195.0, 190.0]))
    assert_close(clips.poses[0], expected.flatten(1), atol=1e-4, rtol=0)
    assert clips.notes == ("1 of 6 clips do not move",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a,b,c", "line 1: 188 fields expected, 3 found"),
        (",".join(["x"] * 7 + ["one"] + ["1"] * 180), "line 1: a word where a number"),
        (",".join(["x"] * 7 + ["1"] + ["1"] * 180), "line 1: a box without an inside"),
        (",".join(["x"] * 7 + ["1"] + ["0", "0", "9", "9"] + ["nan"] * 176), "line 1: .* a number out of range"),
        (",".join(["x"] * 7 + ["1e9"] + ["1", "1", "9", "9"] + ["1"] * 176), "line 1: .* a number out of range"),
        (",".join(["x"] * 7 + ["1e999"] + ["1", "1", "9", "9"] + ["1"] * 176), "line 1: a word where a number"),
        ("", "the file is empty"),
        ("\n", "no line in it"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, line, words):
    path = tmp_path / "list.txt"
    path.write_text(line)
    with pytest.raises(FileError, match=words):
        read_clips(path)


def test_labels_give_windows_in_the_box_around_all_their_frames(tmp_path):
    folder = put_labels(tmp_path / "labels")
    clips = read_clips(folder, stride=2)
    points, _ = figures_px(4, 20)
    # 20 frames, windows of 6 two apart are 11 long and begin at 0, 2, ... 8.
    assert clips.names == ("bowl", "squat") and clips.action.tolist() == [1] * 5 + [1] * 5 + [0] * 5
    assert clips.groups[:5] == ("0001",) * 5
    window = points[0, 2:13:2]
    low, high = window.amin(1).amin(0) - 5, window.amax(1).amax(0) + 5
    assert_close(clips.poses[1], to_box(window, torch.cat([low, high])).flatten(1), atol=1e-4, rtol=0)
    assert clips.notes == ("1 videos of fewer than 11 frames left out",)


def test_names_choose_actions_and_their_order(tmp_path):
    clips = read_clips(put_labels(tmp_path), names=("squat", "bowl"))
    assert clips.names == ("squat", "bowl") and set(clips.action.tolist()) == {0, 1}
    assert split_names(" squat,\nbowl , ,") == ("squat", "bowl")


def test_a_clip_with_a_joint_outside_the_picture_is_left_out(tmp_path):
    from scipy.io import loadmat, savemat

    folder = put_labels(tmp_path)
    content = loadmat(folder / "0003.mat")
    content["x"][6, 4] = content["y"][6, 4] = 1
    savemat(folder / "0003.mat", {key: value for key, value in content.items() if key[0] != "_"})
    notes = read_clips(folder).notes
    assert notes[0] == "6 clips with a joint outside the picture left out"


def test_a_file_that_is_no_label_is_named(tmp_path):
    folder = put_labels(tmp_path)
    (folder / "0009.mat").write_bytes(b"nothing")
    with pytest.raises(FileError, match="0009.mat: no label of Penn Action"):
        read_clips(folder)


def test_poses_in_folders_are_actions(tmp_path):
    clips = read_clips(put_poses(tmp_path), steps=6)
    assert clips.names == ("bow", "wave") and clips.steps == 6
    # Four videos of 12 frames hold 5 windows of 8 each.
    assert torch.bincount(clips.action).tolist() == [10, 10]
    assert set(clips.groups) == {"bow/00", "bow/02", "wave/01", "wave/03"}


def test_frames_without_a_whole_person_are_left_out_and_counted(tmp_path):
    folder = put_poses(tmp_path)
    path = folder / "bow" / "00.json"
    value = json.loads(path.read_text())
    value[6]["people"] = []
    path.write_text(json.dumps(value))
    clips = read_clips(folder)
    # Of the seven windows of six frames of that video six hold the frame.
    assert clips.groups.count("bow/00") == 1 and clips.groups.count("bow/02") == 7
    assert clips.notes[0] == "1 frames without a whole person left out"


def test_a_json_that_is_none_is_named(tmp_path):
    folder = put_poses(tmp_path)
    (folder / "bow" / "99.json").write_text("{")
    with pytest.raises(FileError, match="99.json: this is no JSON"):
        read_clips(folder)


def test_nothing_to_learn_from_is_said(tmp_path):
    with pytest.raises(FileError, match="no such file or folder"):
        read_clips(tmp_path / "none")
    with pytest.raises(FileError, match="no clip to learn from"):
        read_clips(tmp_path)
    put_poses(tmp_path, num_frames=5)
    with pytest.raises(FileError, match="no clip to learn from .4 videos of fewer than 6 frames left out"):
        read_clips(tmp_path)
    put_poses(tmp_path / "one", actions=("bow",))
    with pytest.raises(FileError, match="clips of one action alone .bow."):
        read_clips(tmp_path / "one")


def test_a_mirror_exchanges_sides_in_the_body_and_in_the_picture():
    poses = torch.rand(3, 26, generator=torch.Generator().manual_seed(0)) * 1.9 - 1
    turned = mirror_poses(poses).unflatten(-1, (13, 2))
    joints = poses.unflatten(-1, (13, 2))
    # Pixel p of 128 is seen at 127 - p; the left shoulder is then the right one.
    assert_close((turned[:, 2, 0] + 1) * 64, 127 - (joints[:, 1, 0] + 1) * 64)
    assert_close(turned[:, 2, 1], joints[:, 1, 1])
    assert_close(mirror_poses(mirror_poses(poses)), poses)


def test_half_of_the_clips_drawn_are_mirrored_and_the_seed_decides(tmp_path):
    clips = read_clips(put_poses(tmp_path))
    poses, action = draw_clips(clips, 400, torch.Generator().manual_seed(2), mirror=True)
    again, _ = draw_clips(clips, 400, torch.Generator().manual_seed(2), mirror=True)
    assert_close(poses, again)
    known = {clip.numpy().tobytes() for clip in clips.poses}
    straight = sum(clip.numpy().tobytes() in known for clip in poses)
    assert 160 < straight < 240 and set(action.tolist()) == {0, 1}


def test_no_video_is_both_learned_from_and_held_out(tmp_path):
    clips = read_clips(put_poses(tmp_path, videos=3))
    learned, held_out = split_clips(clips)
    assert set(learned.groups).isdisjoint(held_out.groups)
    assert set(learned.action.tolist()) == set(held_out.action.tolist()) == {0, 1}
    assert len(learned.poses) + len(held_out.poses) == len(clips.poses)


def test_training_data_says_what_it_is_and_tells_itself_from_others(tmp_path):
    folder = put_poses(tmp_path)
    data = read_training_data(folder)
    poses, action = data.draw(5, torch.Generator().manual_seed(0))
    assert poses.shape == (5, data.steps + 2, 26) and len(action) == 5
    assert data.held_out[0].shape[1:] == (data.steps + 1, 26)
    assert "14 clips of 2 videos to learn from, 14 held out" in data.notes[0]
    assert data.digest == read_training_data(folder).digest != read_training_data(folder, mirror=False).digest
    figures = figures_data()
    assert figures.draw(3, torch.Generator())[0].shape == (3, figures.steps + 2, 26)
