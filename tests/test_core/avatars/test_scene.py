"""Where avatars stand, what they do when, and what is filmed of them."""

import math

import pytest
import torch
from gltf_models import arm, triangle

from flexiact_core.avatars.camera import Camera, look_rotation
from flexiact_core.avatars.gltf import read_avatar
from flexiact_core.avatars.joints import NAMES
from flexiact_core.avatars.pose import joint_matrices, skin
from flexiact_core.avatars.scene import Scene, place_avatar, render_scene
from flexiact_core.avatars.shipped import shipped_avatar
from flexiact_core.errors import SettingError

SMALL = {"num_frames": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def man():
    return shipped_avatar("man")


def vertices(placement, second=0.0):
    nodes = placement.nodes_at(torch.tensor([second]))
    return skin(placement.avatar, joint_matrices(placement.avatar, nodes)[0])[0]


def at(position, target=(0.0, 0.9, 0.0), **how):
    return Camera(position, target, look_rotation(position, target), **how)


def film(*placements, **how):
    return render_scene(Scene(placements), **SMALL | how)


def test_scale_turn_and_place_by_hand():
    thing = read_avatar(triangle(points=[[1, 0, 0], [0, 1, 0], [0, 0, 1]]).glb())
    placed = place_avatar(thing, x=10, z=-5, turn=90, scale=2, fit=False)
    # A quarter to its left takes +Z, where it looks, to +X, and +X to -Z.
    expected = torch.tensor([[10.0, 0, -7], [10, 2, -5], [12, 0, -5]])
    torch.testing.assert_close(vertices(placed), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_fit_makes_any_unit_1_7_metres_on_the_ground_in_the_middle(size):
    points = [[3 * size, 5 * size, 0], [3.5 * size, 5 * size, 0], [3 * size, 7 * size, 0.2 * size]]
    fitted = vertices(place_avatar(read_avatar(triangle(points=points).glb())))
    low, high = fitted.amin(0), fitted.amax(0)
    assert float(high[1]) == pytest.approx(1.7, abs=1e-4) and float(low[1]) == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close((low + high)[[0, 2]], torch.zeros(2), atol=1e-4, rtol=0)


def test_fit_stands_up_a_model_with_z_up_and_scale_multiplies():
    lying = read_avatar(triangle(points=[[0, 0, 0], [0.4, -0.2, 0], [0.2, 0, 1.8]]).glb())
    fitted = vertices(place_avatar(lying, scale=2))
    assert float(fitted[2, 1]) == pytest.approx(3.4, abs=1e-4)
    # What was in front of it, -Y, is in front of it again, +Z.
    assert fitted[1, 2] > fitted[0, 2]


def test_the_viewers_transform_takes_the_place_of_fit():
    thing = read_avatar(triangle(points=[[1, 0, 0], [0, 1, 0], [0, 0, 1]]).glb())
    half = 0.5**0.5
    info = [
        {
            "position": {"x": 1, "y": 2, "z": 3},
            "quaternion": {"x": 0, "y": half, "z": 0, "w": half},
            "scale": {"x": 1, "y": 2, "z": 3},
        }
    ]
    expected = torch.tensor([[1.0, 2, 2], [1, 4, 3], [4, 2, 3]])
    torch.testing.assert_close(vertices(place_avatar(thing, viewer=info)), expected, atol=1e-5, rtol=0)
    for broken in ([{}], [info[0] | {"scale": 2}], [info[0] | {"quaternion": dict.fromkeys("xyzw", 0)}]):
        with pytest.raises(SettingError, match="model_3d_info"):
            place_avatar(thing, viewer=broken)


def test_a_clip_starts_runs_repeats_and_holds():
    thing = read_avatar(arm().glb())  # a quarter turn in one second

    def angle(second, **timing):
        tip = vertices(place_avatar(thing, fit=False, **timing), second)[4] - torch.tensor([1.0, 0, 0])
        return math.degrees(math.atan2(float(tip[1]), float(tip[0])))

    assert angle(0.5) == pytest.approx(45, abs=1e-3)
    assert angle(0.25, start=0.25) == pytest.approx(45, abs=1e-3)
    assert angle(0.25, speed=2.0) == pytest.approx(45, abs=1e-3)
    assert angle(1.25) == pytest.approx(22.5, abs=1e-3)
    assert angle(1.25, loop=False) == pytest.approx(90, abs=1e-3)


def test_frames_a_period_apart_are_the_same(man):
    duration = man.clip("walk").duration
    frames = film(place_avatar(man, clip="walk"), num_frames=5, fps=4 / duration).frames
    torch.testing.assert_close(frames[0], frames[4], atol=1e-3, rtol=0)
    assert (frames[0] - frames[2]).abs().amax() > 0.1


def test_an_unknown_clip_names_those_there(man):
    with pytest.raises(SettingError, match="man has no clip 'fly'. Its clips: walk, wave, jump, sit, turn, dance"):
        place_avatar(man, clip="fly")
    assert man.clip().name == "walk" and man.clip(" WAVE ").name == "wave"


@pytest.mark.parametrize("how", [{"scale": 0.0}, {"scale": -1.0}, {"scale": math.nan}, {"speed": 0.0}])
def test_places_that_make_no_sense(man, how):
    with pytest.raises(SettingError, match="over 0"):
        place_avatar(man, **how)


def test_two_people_are_drawn_side_by_side_and_do_not_mix(man):
    left, right = place_avatar(man, x=-0.6), place_avatar(man, x=0.6, tint=(1.0, 0.0, 0.0))
    camera = at((0.0, 0.9, 4.0))
    both, one, other = (film(*p, camera=camera) for p in ((left, right), (left,), (right,)))
    torch.testing.assert_close(both.masks, torch.maximum(one.masks, other.masks))
    torch.testing.assert_close(both.frames, one.frames + other.frames, atol=1e-6, rtol=0)
    assert other.frames[..., 0].amax() > 0.2 and other.frames[..., 1:].amax() == 0
    assert both.poses.num_people == 2
    torch.testing.assert_close(both.poses.points[:, 0], one.poses.points[:, 0])


def test_placing_and_rendering_change_nothing_that_flows(man):
    before = [man.vertices.clone(), man.colours.clone()]
    first = Scene()
    second = first.with_avatar(place_avatar(man, tint=(0.5, 0.5, 0.5)))
    film(*second.placements)
    assert first.placements == () and len(second.placements) == 1
    assert torch.equal(man.vertices, before[0]) and torch.equal(man.colours, before[1])


def test_the_same_scene_gives_the_same_film(man):
    first, second = (film(place_avatar(man, clip="dance"), move="orbit", amount=90.0) for _ in range(2))
    assert torch.equal(first.frames, second.frames) and torch.equal(first.masks, second.masks)
    assert torch.equal(first.poses.points, second.poses.points)


def test_without_a_camera_all_of_everyone_is_in_view(man):
    scene = [place_avatar(man, x=-1.0, clip="jump"), place_avatar(man, x=1.0, z=-1.0, clip="dance")]
    for move, amount in (("still", 0.0), ("orbit", 180.0)):
        masks = film(*scene, num_frames=8, move=move, amount=amount).masks
        border = torch.cat([masks[:, [0, -1]].flatten(), masks[:, :, [0, -1]].flatten()])
        assert border.amax() == 0 and masks.amax((1, 2)).amin() == 1


def test_a_moving_camera_is_given_back_frame_by_frame(man):
    shot = film(place_avatar(man), camera=at((0.0, 0.9, 4.0)), move="dolly", amount=1.0)
    assert [round(camera.position[2], 4) for camera in shot.cameras] == [4.0, 3.5, 3.0]
    assert (shot.masks.sum((1, 2)).diff() > 0).all()


def test_joints_lie_where_the_camera_sees_them_and_left_is_the_persons_own(man):
    camera = at((0.0, 0.9, 4.0))
    shot = film(place_avatar(man, clip="sit"), camera=camera, width=128, height=128)
    assert shot.poses.canvas == (128, 128) and shot.poses.fps == 8
    points, scores = shot.poses.points[0, 0], shot.poses.scores[0, 0]
    assert scores.tolist() == [1.0] * 18
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "eye", "ear"):
        # Facing the viewer, the person's left is on the picture's right.
        assert points[NAMES.index(f"left_{joint}"), 0] > points[NAMES.index(f"right_{joint}"), 0], joint
    node = man.skeleton.names.index("mixamorig:LeftHand")
    world = place_avatar(man, clip="sit").nodes_at(torch.zeros(1))[0, node, :3, 3]
    torch.testing.assert_close(points[NAMES.index("left_wrist")], camera.project(world, 128, 128)[:2])
    for index, point in enumerate(points.long().tolist()):
        assert shot.masks[0, point[1], point[0]] > 0, NAMES[index]


def test_a_face_turned_away_is_not_seen_and_of_a_profile_one_side(man):
    def seen(turn):
        shot = film(place_avatar(man, clip="wave", turn=turn), camera=at((0.0, 0.9, 4.0)), num_frames=1)
        return {name for name, score in zip(NAMES, shot.poses.scores[0, 0].tolist()) if score}

    body = set(NAMES) - {"nose", "right_eye", "left_eye", "right_ear", "left_ear"}
    assert seen(0) == set(NAMES)
    assert seen(180) == body | {"right_ear", "left_ear"}
    # Turned to its left, it shows its right side.
    assert {"right_ear", "right_eye", "nose"} <= seen(85) and "left_ear" not in seen(85)
    assert {"left_ear", "left_eye", "nose"} <= seen(-85) and "right_ear" not in seen(-85)


def test_joints_outside_the_picture_or_behind_the_camera_are_absent(man):
    close = film(place_avatar(man, clip="wave"), camera=at((0.0, 1.5, 1.2), (0.0, 1.5, 0.0)), num_frames=1).poses
    scores = dict(zip(NAMES, close.scores[0, 0].tolist()))
    assert scores["nose"] == 1 and scores["left_ankle"] == 0
    away = at((0.0, 0.9, 4.0), (0.0, 0.9, 8.0))
    behind = film(place_avatar(man), camera=away)
    assert behind.poses.scores.sum() == 0
    assert any("No avatar is in view in any frame" in note for note in behind.notes)
    assert behind.frames.amax() == 0


def test_a_thing_has_a_place_among_the_people_but_no_joints_and_that_is_said(man):
    thing = read_avatar(triangle().glb(), "thing.glb")
    shot = film(place_avatar(thing, x=-1), place_avatar(man, x=1))
    assert shot.poses.present().tolist() == [[False, True]] * 3
    assert [note for note in shot.notes if note.startswith("thing: no human skeleton")]
    assert "thing: The model has no skin: it is drawn rigid." in shot.notes


def test_a_camera_inside_an_avatar_is_refused(man):
    with pytest.raises(SettingError, match="In frame 0 the camera is inside man"):
        film(place_avatar(man, clip="wave"), camera=at((0.0, 1.6, 0.02), (0.0, 1.6, -4.0)))
    with pytest.raises(SettingError, match="In frame 2"):
        film(place_avatar(man, clip="wave"), camera=at((0.0, 1.6, 4.0), (0.0, 1.6, 0.0)), move="dolly", amount=3.98)


def test_an_empty_scene_and_a_film_that_does_not_fit_are_refused(man):
    with pytest.raises(SettingError, match="no avatar"):
        film()
    with pytest.raises(SettingError, match="million pixels"):
        film(place_avatar(man), num_frames=240, width=2048, height=2048)


def test_a_step_after_each_frame_may_stop(man):
    seen = []

    def stop(index, frame):
        seen.append((index, tuple(frame.shape)))
        if index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        film(place_avatar(man), on_step=stop)
    assert seen == [(0, (64, 64, 3)), (1, (64, 64, 3))]
