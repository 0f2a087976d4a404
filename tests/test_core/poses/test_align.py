"""Driving poses laid onto a picture's person: worked by hand where the recorded set cannot tell readings apart."""

import pytest
import torch

from flexiact_core.errors import SettingError, ShapeError
from flexiact_core.poses.align import align_poses, apply_affine, fit_proportions, fit_release
from flexiact_core.poses.sequence import PoseSequence
from flexiact_core.poses.skeletons import BODY, HAND_LEFT, LIMBS

NOSE, NECK = 0, 1

# A standing figure, (x, y) of OpenPose's 18 points in a box of 1.
FIGURE = torch.tensor(
    [
        *((0.5, 0.1), (0.5, 0.22), (0.4, 0.24), (0.34, 0.36), (0.3, 0.48), (0.6, 0.24), (0.66, 0.36), (0.7, 0.48)),
        *((0.44, 0.52), (0.43, 0.72), (0.42, 0.92), (0.56, 0.52), (0.57, 0.72), (0.58, 0.92)),
        *((0.48, 0.08), (0.52, 0.08), (0.45, 0.09), (0.55, 0.09)),
    ]
)


def figure(scale=1.0, shift=(0.0, 0.0), absent=(), canvas=(100, 100), frames=1, seen=1.0) -> PoseSequence:
    """The figure, scaled and moved, in pixels; hands and face are absent."""
    points, scores = torch.zeros(frames, 1, 134, 2), torch.zeros(frames, 1, 134)
    points[:, 0, BODY] = (FIGURE * scale + torch.tensor(shift)) * 100
    scores[:, 0, BODY] = seen
    scores[..., list(absent)] = 0.1
    return PoseSequence(points, scores, canvas, 16.0)


def stack(*poses: PoseSequence) -> PoseSequence:
    """Frames after one another, with room for all their people."""
    people = max(each.num_people for each in poses)
    points, scores = torch.zeros(len(poses), people, 134, 2), torch.zeros(len(poses), people, 134)
    for frame, each in enumerate(poses):
        points[frame, : each.num_people], scores[frame, : each.num_people] = each.points[0], each.scores[0]
    return PoseSequence(points, scores, poses[0].canvas, 16.0)


def pair(first: PoseSequence, second: PoseSequence) -> PoseSequence:
    """Two people in one frame."""
    points, scores = (torch.cat(parts, 1) for parts in ((first.points, second.points), (first.scores, second.scores)))
    return PoseSequence(points, scores, first.canvas, 16.0)


def test_the_figure_itself_is_scaled_and_moved_onto_the_reference():
    affine = fit_release(figure(0.5, (0.2, 0.3)), figure())
    assert affine.scale == pytest.approx((0.5, 0.5)) and affine.shift == pytest.approx((0.2, 0.3), abs=1e-6)
    assert not affine.note


def test_where_the_references_nose_is_hidden_its_first_seen_joint_meets_the_driving_nose():
    """Reference neck at 0.22 meets driving nose at 0.1: everything lands 0.12 * 0.5 + ... lower than it stands."""
    affine = fit_release(figure(0.5, (0.2, 0.3), absent=[NOSE]), figure())
    neck_of_reference, nose_of_driving = 0.22 * 0.5 + 0.3, 0.1
    assert affine.shift[1] == pytest.approx(neck_of_reference - 0.5 * nose_of_driving, abs=1e-6)
    # Both other readings, nose to nose (the reference's guessed place) and neck to neck, give 0.3.
    assert affine.shift[1] - 0.3 == pytest.approx(0.06, abs=1e-6)


def test_the_driving_nose_counts_whatever_its_score():
    hidden = figure(absent=[NOSE])
    assert fit_release(figure(0.5, (0.2, 0.3)), hidden).shift[1] == pytest.approx(0.3, abs=1e-6)
    places = hidden.points.clone()
    places[:, :, NOSE, 1] += 10
    moved = fit_release(figure(0.5, (0.2, 0.3)), PoseSequence(places, hidden.scores, hidden.canvas, 16.0))
    assert moved.shift[1] == pytest.approx(0.05 + 0.3 - moved.scale[1] * 0.2, abs=1e-6)


def test_a_first_frame_of_two_people_is_left_out_of_the_fit_but_its_first_nose_is_met():
    reference = figure(0.5, (0.2, 0.3))
    crowd = pair(figure(1.0, (0.0, 0.04)), figure(0.3))
    affine = fit_release(reference, stack(crowd, figure(), figure()))
    assert affine.scale == pytest.approx((0.5, 0.5))  # of the two single frames alone
    assert affine.shift[0] == pytest.approx(0.2, abs=1e-6)
    # The nose of the reference (0.35) meets the first person's nose in frame 0 (0.14).
    assert affine.shift[1] == pytest.approx(0.35 - 0.5 * 0.14, abs=1e-6)


def test_only_two_people_everywhere_is_still_fitted():
    """The release fails there."""
    affine = fit_release(figure(0.5, (0.2, 0.3)), pair(figure(), figure(0.3)))
    assert affine.scale == pytest.approx((0.5, 0.5))


def test_canvases_of_other_shapes_keep_the_figure_unstretched():
    driving = figure(canvas=(200, 100))
    affine = fit_release(figure(0.5, (0.2, 0.3)), driving)
    aligned = apply_affine(driving, affine, 100, 100)
    torch.testing.assert_close(
        aligned.points[0, 0, BODY], figure(0.5, (0.2, 0.3)).points[0, 0, BODY], atol=1e-4, rtol=0
    )


def test_arms_do_not_enter_the_fit_and_the_upper_body_is_enough():
    driving = figure()
    points = driving.points.clone()
    points[..., [3, 4, 6, 7], :] = 99
    waving = PoseSequence(points, driving.scores, driving.canvas, 16.0)
    assert fit_release(figure(0.5), waving).scale == pytest.approx((0.5, 0.5))
    legs = [8, 9, 10, 11, 12, 13]
    affine = fit_release(figure(0.5, (0.2, 0.3), absent=legs), driving)
    assert affine.scale == pytest.approx((0.5, 0.5)) and affine.shift == pytest.approx((0.2, 0.3), abs=1e-6)


def without_places(poses: PoseSequence, joints) -> PoseSequence:
    points, scores = poses.points.clone(), poses.scores.clone()
    points[..., joints, :], scores[..., joints] = 0, 0
    return PoseSequence(points, scores, poses.canvas, poses.fps)


def test_driving_joints_without_any_place_are_left_out():
    """As POSE_KEYPOINT writes what was not found: 0, 0 with confidence 0."""
    affine = fit_release(figure(0.5, (0.2, 0.3)), without_places(figure(), [8, 9, 10]))
    assert affine.scale == pytest.approx((0.5, 0.5)) and affine.shift == pytest.approx((0.2, 0.3), abs=1e-6)
    noseless = fit_release(figure(0.5, (0.2, 0.3), absent=[NOSE]), without_places(figure(), [NOSE]))
    # Without any place of the nose the reference's first seen joint, the neck, meets the driving neck.
    assert noseless.shift[1] == pytest.approx(0.3, abs=1e-6)


def test_fewer_than_two_joints_or_one_height_fall_back_to_the_trunk_or_to_covering():
    lying = figure()
    points = lying.points.clone()
    points[..., 1] = 50 + points[..., 1] * 1e-4
    flat = PoseSequence(points, lying.scores, lying.canvas, 16.0)
    affine = fit_release(figure(0.5), flat)
    assert affine.scale == pytest.approx((1, 1)) and "one height" in affine.note
    only_trunk = without_places(figure(), [0, 1, *range(9, 11), *range(12, 18)])
    one = fit_release(figure(0.5, absent=[*range(0, 2), *range(3, 18)]), only_trunk)
    assert one.scale[1] == pytest.approx(0.5) and "shoulders and hips" in one.note
    nothing = fit_release(figure(0.5, absent=range(18)), figure())
    assert nothing.scale == (1, 1) and "no joint" in nothing.note


def test_an_upside_down_person_is_not_mirrored():
    flipped = figure()
    points = flipped.points.clone()
    points[..., 1] = 100 - points[..., 1]
    affine = fit_release(figure(), PoseSequence(points, flipped.scores, flipped.canvas, 16.0))
    assert affine.scale == (1, 1) and "upside down" in affine.note


def test_a_far_scale_is_applied_and_told():
    affine = fit_release(figure(0.2, (0.4, 0.4)), figure())
    assert affine.scale == pytest.approx((0.2, 0.2)) and "0.2 times" in affine.note


def lengths(poses: PoseSequence, frame: int = 0) -> torch.Tensor:
    body = poses.points[frame, 0, BODY].double()
    return torch.stack([(body[b] - body[a]).norm() for a, b in LIMBS])


def turned(poses: PoseSequence, joint: int, elbow: int, degrees: float) -> PoseSequence:
    """The limb from elbow to joint turned."""
    angle = torch.tensor(degrees).deg2rad()
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    points = poses.points.clone()
    points[:, :, joint] = (points[:, :, joint] - points[:, :, elbow]) @ turn.T + points[:, :, elbow]
    return PoseSequence(points, poses.scores, poses.canvas, poses.fps)


def long_armed() -> PoseSequence:
    """A reference whose forearms are twice as long, all else the figure at 0.6."""
    poses = figure(0.6, (0.1, 0.2))
    points = poses.points.clone()
    for wrist, elbow in ((4, 3), (7, 6)):
        points[:, :, wrist] = points[:, :, elbow] + 1.9 * (points[:, :, wrist] - points[:, :, elbow])
    return PoseSequence(points, poses.scores, poses.canvas, poses.fps)


def test_proportions_keep_the_references_bones_and_the_driving_angles():
    reference = long_armed()
    driving = stack(figure(), turned(figure(), 4, 3, 70), turned(turned(figure(), 4, 3, -40), 7, 6, 25))
    aligned, note = fit_proportions(reference, driving)
    assert not note
    for frame in range(3):
        torch.testing.assert_close(lengths(aligned, frame), lengths(reference), atol=1e-3, rtol=0)
        for a, b in LIMBS:
            ours = aligned.points[frame, 0, b] - aligned.points[frame, 0, a]
            theirs = driving.points[frame, 0, b] - driving.points[frame, 0, a]
            torch.testing.assert_close(ours / ours.norm(), theirs / theirs.norm(), atol=1e-4, rtol=0)
    torch.testing.assert_close(aligned.points[0, 0, NECK], reference.points[0, 0, NECK])
    # One scale for a clip would leave the forearms short.
    one_scale = apply_affine(driving, fit_release(reference, driving), 100, 100)
    assert (lengths(one_scale) / lengths(reference)).min() < 0.6


def test_a_bone_changes_by_twice_at_the_most_and_the_neck_moves_by_the_clips_scale():
    reference = figure(0.5)
    points = reference.points.clone()
    points[:, :, [10, 13]] += 400
    walking = stack(figure(), figure(1.0, (0.1, -0.04)))
    aligned, _ = fit_proportions(PoseSequence(points, reference.scores, reference.canvas, 16.0), walking)
    assert (lengths(aligned) / lengths(walking)).max() == pytest.approx(2 * 0.5)
    step = aligned.points[1, 0, NECK] - aligned.points[0, 0, NECK]
    torch.testing.assert_close(step, torch.tensor([5.0, -2.0]), atol=1e-3, rtol=0)


def test_hands_go_with_the_wrist_they_are_at():
    driving = figure()
    points, scores = driving.points.clone(), driving.scores.clone()
    points[:, :, HAND_LEFT] = points[:, :, 7:8] + torch.randn(21, 2)
    scores[:, :, HAND_LEFT] = 1
    with_hand = PoseSequence(points, scores, driving.canvas, driving.fps)
    aligned, _ = fit_proportions(long_armed(), with_hand)
    own = (points[:, :, HAND_LEFT] - points[:, :, 7:8]) * 0.6
    torch.testing.assert_close(aligned.points[:, :, HAND_LEFT] - aligned.points[:, :, 7:8], own, atol=1e-3, rtol=1e-4)


def test_proportions_of_nobody_in_common_cover_the_canvas():
    aligned, note = fit_proportions(figure(0.5, absent=range(18)), figure())
    torch.testing.assert_close(aligned.points, figure().points)
    assert "not aligned" in note


def test_the_pictures_own_pose_comes_first_and_the_length_is_as_asked():
    reference, driving = figure(0.5, (0.2, 0.3)), figure(frames=4)
    aligned, note = align_poses(driving, reference, 100, 100, num_frames=7)
    assert aligned.num_frames == 7 and aligned.canvas == (100, 100) and not note
    torch.testing.assert_close(aligned.points[0, 0, BODY], reference.points[0, 0, BODY])
    torch.testing.assert_close(aligned.points[6, 0, BODY], reference.points[0, 0, BODY], atol=1e-4, rtol=0)
    alone, _ = align_poses(driving, reference, 100, 100, reference_first=False)
    assert alone.num_frames == 4


def test_the_reference_goes_where_the_picture_is_cut_to():
    """A picture of 200 x 100 made into 100 x 100 loses 50 pixels on both sides."""
    reference = figure(canvas=(200, 100))
    aligned, _ = align_poses(figure(), reference, 100, 100)
    assert aligned.points[0, 0, NECK].tolist() == pytest.approx([0.5 * 100 - 50, 22])


def test_without_a_person_in_the_picture_the_canvas_is_covered_and_it_is_told():
    nobody = PoseSequence(torch.zeros(1, 0, 134, 2), torch.zeros(1, 0, 134), (64, 64), 16.0)
    for reference in (None, nobody):
        aligned, note = align_poses(figure(), reference, 200, 200)
        assert "no person in the picture" in note and aligned.num_frames == 1
        torch.testing.assert_close(aligned.points, figure().points * 2)
    assert align_poses(figure(), None, 200, 200, method="none")[1] == ""


def test_gaps_are_filled_and_told_and_the_rate_is_brought_to_the_models():
    empty = PoseSequence(torch.zeros(1, 1, 134, 2), torch.zeros(1, 1, 134), (100, 100), 16.0)
    driving = stack(figure(), empty, figure(1.0, (0.2, 0)), empty)
    held, note = align_poses(driving, None, 100, 100, method="none")
    assert "nobody in 2 of 4 frames (hold)" in note and held.present().all()
    between, _ = align_poses(driving, None, 100, 100, method="none", missing="interpolate")
    assert between.points[1, 0, NECK, 0] == pytest.approx(60)
    assert align_poses(driving, None, 100, 100, method="none", fps=8)[0].num_frames == 2


def test_two_people_are_aligned_together_or_one_is_chosen():
    crowd = pair(figure(), figure(0.4))
    both, _ = align_poses(crowd, figure(0.5), 100, 100, person="all")
    assert both.present().tolist() == [[True, False], [True, True]]
    one, _ = align_poses(crowd, figure(0.5), 100, 100, person="largest")
    assert one.num_people == 1
    small, _ = align_poses(crowd, figure(0.5), 100, 100, person=1, method="none")
    torch.testing.assert_close(small.points[0, 0, BODY], figure(0.4).points[0, 0, BODY])


def test_what_cannot_be_aligned_is_refused():
    with pytest.raises(SettingError, match="release, proportions or none"):
        align_poses(figure(), None, 64, 64, method="stretch")
    nobody = PoseSequence(torch.zeros(3, 0, 134, 2), torch.zeros(3, 0, 134), (64, 64), 16.0)
    with pytest.raises(ShapeError, match="no person found in 3 frames"):
        align_poses(nobody, None, 64, 64)
