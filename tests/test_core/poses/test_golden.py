"""What the release makes of detected people: split, alignment, drawing."""

import pytest
import torch
from dynamictrl_golden import facts, part, tensors

from flexiact_core.poses.align import FIT_JOINTS, apply_affine, fit_release
from flexiact_core.poses.draw import draw_poses
from flexiact_core.poses.sequence import PoseSequence, to_layout
from flexiact_core.poses.skeletons import BODY, COCO133, FACE, HAND_LEFT, HAND_RIGHT

SHEET = facts("dwpose")
CANVAS = (SHEET["W"], SHEET["H"])
DRIVING_CANVAS = (SHEET["driving_hw"][1], SHEET["driving_hw"][0])
TAGS = sorted(
    (tag for tag in {key.split(".")[1] for key in tensors("dwpose")} if tag[1:].isdigit()), key=lambda t: int(t[1:])
)


def detected(tags: list[str], canvas: tuple[int, int]) -> PoseSequence:
    """The recorded detections as they are, in pixels of a canvas."""
    found = [part("dwpose", f"in.{tag}.") for tag in tags]
    people = max(len(each["score133"]) for each in found)
    points, scores = torch.zeros(len(tags), people, 133, 2, dtype=torch.float64), torch.zeros(len(tags), people, 133)
    for frame, each in enumerate(found):
        points[frame, : len(each["score133"])] = each["kpts133"].double()
        scores[frame, : len(each["score133"])] = each["score133"].clamp(0, 1)
    return to_layout(PoseSequence(points, scores, canvas, 16, COCO133), "wholebody134")


def normalised(poses: PoseSequence) -> torch.Tensor:
    return poses.points / torch.tensor(poses.canvas)


def recorded(tag: str, body: str = "body_xy", a=1.0, b=0.0) -> PoseSequence:
    """The recorded split points of one frame as poses on the canvas; a and b move what is not the body."""
    out = part("dwpose", f"out.{tag}.")
    people = len(out["body_subset"])
    points, scores = torch.zeros(1, people, 134, 2, dtype=torch.float64), torch.zeros(1, people, 134)
    points[0, :, BODY], scores[0, :, BODY] = out[body].double().view(people, 18, 2), out["body_score"]
    points[0, :, FACE], scores[0, :, FACE] = out["faces"].double() * a + b, out["faces_score"]
    for number, hand in enumerate((HAND_RIGHT, HAND_LEFT)):
        rows = slice(number * people, (number + 1) * people)
        points[0, :, hand], scores[0, :, hand] = out["hands"][rows].double() * a + b, out["hands_score"][rows]
    return PoseSequence(points * torch.tensor(CANVAS), scores.clamp(0, 1), CANVAS, 16)


@pytest.mark.parametrize("tag", ["ref", *TAGS])
def test_133_points_are_split_as_released(tag):
    out, canvas = part("dwpose", f"out.{tag}."), CANVAS if tag == "ref" else DRIVING_CANVAS
    poses = detected([tag], canvas)
    places, people = normalised(poses)[0].float(), poses.num_people
    close = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(places[:, BODY].reshape(-1, 2), out["body_xy"], **close)
    torch.testing.assert_close(places[:, FACE], out["faces"], **close)
    torch.testing.assert_close(torch.cat([places[:, HAND_RIGHT], places[:, HAND_LEFT]]), out["hands"], **close)
    own = [joint for joint in range(18) if joint != 1]
    torch.testing.assert_close(poses.scores[0][:, own], out["body_score"][:, own].clamp(0, 1), **close)
    # Of the neck the release keeps whether both shoulders are seen, not how well.
    seen = poses.scores[0][:, [2, 5]].amin(-1) > 0.3
    assert torch.equal(seen, out["body_score"][:, 1] > 0.3) and len(seen) == people


def test_driving_people_are_aligned_as_released():
    reference, driving = detected(["ref"], CANVAS), detected(TAGS, DRIVING_CANVAS)
    affine = fit_release(reference, driving)
    out = tensors("dwpose")
    close = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(torch.tensor(affine.scale, dtype=torch.float64), out["out.affine_a"], **close)
    torch.testing.assert_close(torch.tensor(affine.shift, dtype=torch.float64), out["out.affine_b"], **close)
    aligned = normalised(apply_affine(driving, affine, *CANVAS))
    for frame, tag in enumerate(TAGS):
        expected = out[f"out.{tag}.aligned_body"].view(-1, 18, 2)
        torch.testing.assert_close(aligned[frame, : len(expected), BODY], expected, **close)


def test_the_fitted_joints_are_the_recorded_ones():
    seen = detected(["ref"], CANVAS).scores[0, 0]
    assert [joint for joint in FIT_JOINTS if seen[joint] > 0.3] == SHEET["fit_ids"]


def drawings():
    out = tensors("dwpose")
    yield "ref", recorded("ref"), out["out.ref.drawn"]
    for frame, tag in enumerate(TAGS):
        yield (
            tag,
            recorded(tag, "aligned_body", out["out.affine_a"], out["out.affine_b"]),
            out["out.video.drawn"][frame],
        )


@pytest.mark.parametrize(("tag", "poses", "expected"), drawings(), ids=["ref", *TAGS])
def test_poses_are_drawn_as_released(tag, poses, expected):
    """OpenCV rounds each shape to whole pixels of a canvas of 2160; some edges differ by a shade."""
    drawn = (draw_poses(poses, *CANVAS)[0] * 255).round().int()
    expected = expected.permute(1, 2, 0).int()
    assert (drawn == expected).all(-1).float().mean() >= 0.994
    assert (drawn - expected).abs().float().mean() <= 0.15
