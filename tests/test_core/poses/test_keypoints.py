"""POSE_KEYPOINT in every dialect met, and back."""

import json
import math

import pytest
import torch

from flexiact_core.errors import ShapeError
from flexiact_core.poses.keypoints import read_openpose, write_openpose
from flexiact_core.poses.skeletons import LAYOUTS, WHOLEBODY

NAMES = LAYOUTS[WHOLEBODY]


def flat(number: int, confidence: float = 1.0, start: float = 10.0, step: float = 3.0) -> list[float]:
    """Points on a slanted line, each at a place of its own."""
    return [value for i in range(number) for value in (start + step * i, 2 * start + step * i, confidence)]


def frame(people: list[dict], width=640, height=480) -> dict:
    return {"people": people, "canvas_width": width, "canvas_height": height}


def core_person(confidence: float = 0.8) -> dict:
    """A person as ComfyUI's own SDPose node gives it."""
    return {
        "pose_keypoints_2d": flat(18, confidence),
        "foot_keypoints_2d": flat(6, confidence, start=200),
        "face_keypoints_2d": flat(70, confidence, start=20, step=1),
        "hand_right_keypoints_2d": flat(21, confidence, start=60),
        "hand_left_keypoints_2d": flat(21, confidence, start=90),
    }


def test_each_part_lands_on_its_own_joints():
    poses = read_openpose([frame([core_person()])], fps=16)
    assert poses.points.shape == (1, 1, 134, 2) and poses.canvas == (640, 480) and poses.fps == 16
    by_name = dict(zip(NAMES, poses.points[0, 0].tolist(), strict=True))
    assert by_name["nose"] == [10, 20] and by_name["left_ear"] == [10 + 3 * 17, 20 + 3 * 17]
    assert by_name["left_big_toe"] == [200, 400] and by_name["face_67"] == [20 + 67, 40 + 67]
    assert by_name["right_hand_0"] == [60, 120] and by_name["left_hand_20"] == [90 + 60, 180 + 60]
    assert poses.scores.unique().tolist() == pytest.approx([0.8])


def test_read_and_written_again_the_joints_are_the_same_and_arrays_are_full():
    absent_hand = core_person() | {"hand_left_keypoints_2d": None, "face_keypoints_2d": []}
    value = [frame([core_person(), absent_hand]), frame([]), frame([absent_hand])]
    poses = read_openpose(value, fps=8)
    written = write_openpose(poses)
    assert [len(each["people"]) for each in written] == [2, 0, 1]
    for person in (person for each in written for person in each["people"]):
        assert {key: len(part) for key, part in person.items()} == {
            "pose_keypoints_2d": 54,
            "foot_keypoints_2d": 18,
            "face_keypoints_2d": 210,
            "hand_right_keypoints_2d": 63,
            "hand_left_keypoints_2d": 63,
        }
        assert set(person["pose_keypoints_2d"][2::3]) == {1.0}
    assert set(written[2]["people"][0]["hand_left_keypoints_2d"]) == {0.0}
    again = read_openpose(json.dumps(written), fps=8)
    torch.testing.assert_close(
        again.points * (again.scores > 0)[..., None], poses.points * (poses.scores > 0)[..., None]
    )
    assert torch.equal(again.scores > 0, poses.scores > 0)


def test_the_written_face_ends_with_the_eyes():
    face = write_openpose(read_openpose([frame([core_person()])], 16))[0]["people"][0]["face_keypoints_2d"]
    assert face[68 * 3 :] == [10 + 3 * 14, 20 + 3 * 14, 1.0, 10 + 3 * 15, 20 + 3 * 15, 1.0]


def test_scores_are_kept_on_request():
    written = write_openpose(read_openpose([frame([core_person(0.5)])], 16), keep_scores=True)
    assert set(written[0]["people"][0]["pose_keypoints_2d"][2::3]) == {0.5}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda each: each,
        lambda each: [each],
        lambda each: [[each]],
        lambda each: json.dumps([each]),
        lambda each: json.dumps(each),
        lambda each: [json.dumps(each)],
        lambda each: (each,),
    ],
    ids=["one dict", "list", "nested", "text", "text of one", "list of text", "tuple"],
)
def test_every_wrapping_is_read(wrap):
    expected = read_openpose([frame([core_person()])], 16)
    poses = read_openpose(wrap(frame([core_person()])), 16)
    assert torch.equal(poses.points, expected.points)


def test_a_part_in_0_to_1_is_a_share_of_the_canvas_and_others_stay_pixels():
    person = core_person()
    share = flat(18, start=0.1, step=0.01)
    person["pose_keypoints_2d"] = share
    poses = read_openpose([frame([person])], 16)
    torch.testing.assert_close(poses.points[0, 0, 0], torch.tensor([0.1 * 640, 0.2 * 480]))
    assert poses.points[0, 0, 92].tolist() == [60, 120]


def test_a_normalised_hand_may_leave_the_canvas_a_little():
    inside, outside = core_person(), core_person()
    inside["hand_left_keypoints_2d"] = flat(21, start=0.2, step=0.01)
    outside["hand_left_keypoints_2d"] = flat(21, start=0.45, step=0.01)  # y to 1.1
    poses = read_openpose([frame([inside])] * 3 + [frame([outside])], 16)
    torch.testing.assert_close(poses.points[3, 0, 133, 1], torch.tensor(1.1 * 480))


def test_a_whole_hand_of_pixels_beside_the_edge_is_no_share():
    """Seen points count, not the zeros of what is absent."""
    person = core_person()
    person["hand_left_keypoints_2d"] = [3.0, 4.0, 1.0] + [0.0] * 60
    assert read_openpose([frame([person])], 16).points[0, 0, 113].tolist() == [3, 4]


def test_body_25_is_mapped_with_its_feet():
    poses = read_openpose([frame([{"pose_keypoints_2d": flat(25)}])], 16)
    at = {name: 10 + 3 * index for index, name in enumerate(LAYOUTS["body25"])}
    places = dict(zip(NAMES, poses.points[0, 0, :, 0].tolist(), strict=True))
    for name in ("nose", "neck", "right_hip", "left_ankle", "left_ear", "right_heel"):
        assert places[name] == at[name], name
    assert at["right_hip"] == 10 + 3 * 9 and at["left_ear"] == 10 + 3 * 18 and at["right_heel"] == 10 + 3 * 24


def test_coco_17_gets_a_neck_between_the_shoulders():
    poses = read_openpose([frame([{"pose_keypoints_2d": flat(17, 0.9)}])], 16)
    places = dict(zip(NAMES, poses.points[0, 0, :, 0].tolist(), strict=True))
    assert places["left_shoulder"] == 10 + 3 * 5 and places["right_shoulder"] == 10 + 3 * 6
    assert places["neck"] == 10 + 3 * 5.5 and places["right_ankle"] == 10 + 3 * 16
    assert poses.scores[0, 0, 1] == pytest.approx(0.9)


@pytest.mark.parametrize("places", [(-1, -1), (math.nan, 5), (5, math.inf), (-1, 5)])
def test_what_is_no_place_is_absent(places):
    person = core_person()
    person["pose_keypoints_2d"][:2] = places
    poses = read_openpose([frame([person])], 16)
    assert poses.scores[0, 0, 0] == 0 and (poses.scores[0, 0, 1:] > 0).all()


def test_null_numbers_are_absent_and_places_outside_the_canvas_are_kept():
    person = core_person()
    person["pose_keypoints_2d"][:6] = [None, None, None, -40.0, 900.0, 1.0]
    poses = read_openpose([frame([person])], 16)
    assert poses.scores[0, 0, 0] == 0
    assert poses.points[0, 0, 1].tolist() == [-40, 900] and poses.scores[0, 0, 1] == 1


def test_confidences_are_cut_to_0_and_1_and_all_zero_is_nobody():
    person = core_person()
    person["pose_keypoints_2d"][2], person["pose_keypoints_2d"][5] = 3.5, -0.5
    poses = read_openpose([frame([person, {"pose_keypoints_2d": flat(18, 0.0)}])], 16)
    assert poses.scores[0, 0, :2].tolist() == [1, 0]
    assert poses.present().tolist() == [[True, False]]
    assert len(write_openpose(poses)[0]["people"]) == 1


def test_a_frame_of_another_size_is_scaled_without_stretching():
    big = frame([{"pose_keypoints_2d": flat(18)}], 1280, 1280)
    poses = read_openpose([frame([{"pose_keypoints_2d": flat(18)}]), big], 16)
    torch.testing.assert_close(poses.points[1, 0, 0], torch.tensor([10 * 0.375 + 80, 20 * 0.375]))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "no frame in it"),
        ("not json", "no JSON"),
        (7, "int found"),
        ([None], "NoneType found"),
        ([{"animals": [[1, 2, 3]], "canvas_width": 64, "canvas_height": 64}], "animals, but no people"),
        ([frame([], 1, 1)], "canvas of 1x1"),
        ([{"people": []}], "canvas_width and canvas_height are needed"),
        ([frame([{"pose_keypoints_2d": flat(18)[:-1]}])], "frame 0, person 0, pose_keypoints_2d: 53 numbers"),
        ([frame([{"pose_keypoints_2d": flat(19)}])], "19 points found; 17 or 18 or 25"),
        ([frame([{"face_keypoints_2d": flat(5)}])], "face_keypoints_2d: 5 points"),
        ([frame([{"pose_keypoints_2d": ["a"] * 54}])], "not all are numbers"),
        ([frame([3])], "'people' must be a list"),
    ],
)
def test_what_cannot_be_read_is_named(value, words):
    with pytest.raises(ShapeError, match=words):
        read_openpose(value, 16)


def deep(levels: int):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (deep(100_000), "poses: lists in lists without end"),
        ("[" * 100_000, "poses: lists in lists without end"),
        ([{"people": [], "canvas_width": 10**400, "canvas_height": 9}], "frame 0: canvas_width and canvas_height"),
        ([{"people": [{"pose_keypoints_2d": 5}], "canvas_width": 64, "canvas_height": 64}], "a list of numbers expect"),
        (
            [{"people": [{"pose_keypoints_2d": [10**400] * 54}], "canvas_width": 64, "canvas_height": 64}],
            "not all are numbers",
        ),
        (
            [{"people": [{}] * 2000, "canvas_width": 64, "canvas_height": 64}]
            + [{"people": [], "canvas_width": 64, "canvas_height": 64}] * 1000,
            "2000 people in 1001 frames are too many",
        ),
    ],
)
def test_hostile_values_end_in_a_sentence_before_memory_is_taken(value, words):
    with pytest.raises(ShapeError, match=words):
        read_openpose(value, 8.0)
