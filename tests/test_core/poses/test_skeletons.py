"""Which joints a layout has, and how one is told from another."""

import torch

from flexiact_core.poses.sequence import PoseSequence, to_layout
from flexiact_core.poses.skeletons import LAYOUTS, LIMBS, PENN13, WHOLEBODY


def test_penn_joints_become_openpose_ones_and_back():
    points = torch.arange(13.0)[None, None, :, None].expand(1, 1, 13, 2)
    poses = PoseSequence(points, torch.ones(1, 1, 13), (128, 128), 4.0, PENN13)
    mapped = to_layout(poses, "openpose18")
    places = mapped.points[0, 0, :, 0].tolist()
    # nose; left/right shoulder, elbow, wrist to 5/2, 6/3, 7/4; hip, knee, ankle to 11/8, 12/9, 13/10; neck between.
    assert [places[i] for i in (0, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)] == list(range(13))
    assert places[1] == 1.5
    assert (mapped.scores[0, 0] > 0).tolist() == [True] * 14 + [False] * 4
    assert torch.equal(to_layout(mapped, PENN13).points, poses.points)
    assert torch.equal(to_layout(to_layout(mapped, WHOLEBODY), "openpose18").points, mapped.points)


def test_layouts_have_their_number_of_joints_and_limbs_are_a_tree():
    assert {name: len(joints) for name, joints in LAYOUTS.items()} == {
        "openpose18": 18,
        "wholebody134": 134,
        "coco17": 17,
        "body25": 25,
        "penn13": 13,
        "coco133": 133,
    }
    assert all(len(set(joints)) == len(joints) for joints in LAYOUTS.values())
    known = {1}
    for parent, child in LIMBS:
        assert parent in known and child not in known
        known.add(child)
    assert known == set(range(18))
