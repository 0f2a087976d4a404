"""Cameras against pixels worked out by hand, and against the matrices that viewers use."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from flexiact_core.avatars.camera import (
    MOVES,
    Camera,
    camera_from_dict,
    framing_camera,
    look_rotation,
    move_camera,
)
from flexiact_core.errors import SettingError

CUBE = list(product((-1.0, 1.0), repeat=3))
WIDTH, HEIGHT = 200, 100
HALF = 0.5**0.5
FRONT = Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), fov=90)
# A field of view of 90 degrees over 100 pixels: 50 pixels a unit at distance 1.
BY_HAND = {
    "perspective": (FRONT, lambda x, y, z: (100 + 50 * x / (4 - z), 50 - 50 * y / (4 - z), 4 - z)),
    "zoom 2": (
        Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), fov=90, zoom=2.0),
        lambda x, y, z: (100 + 100 * x / (4 - z), 50 - 100 * y / (4 - z), 4 - z),
    ),
    # 50 pixels over the distance to the target.
    "orthographic": (
        Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), fov=90, orthographic=True),
        lambda x, y, z: (100 + 12.5 * x, 50 - 12.5 * y, 4 - z),
    ),
    # Turned 90 degrees to the left about Y, so it looks along -X and its right is -Z.
    "from the right": (
        Camera((4.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, HALF, 0.0, HALF), fov=90),
        lambda x, y, z: (100 - 50 * z / (4 - x), 50 - 50 * y / (4 - x), 4 - x),
    ),
    # Rolled 90 degrees to the left: its right is the world's up.
    "rolled": (
        Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), (0.0, 0.0, HALF, HALF), fov=90),
        lambda x, y, z: (100 + 50 * y / (4 - z), 50 + 50 * x / (4 - z), 4 - z),
    ),
    "60 degrees": (
        Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), fov=60),
        lambda x, y, z: (100 + 50 * 3**0.5 * x / (4 - z), 50 - 50 * 3**0.5 * y / (4 - z), 4 - z),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_eight_corners_of_a_cube(name):
    camera, by_hand = BY_HAND[name]
    expected = torch.tensor([by_hand(*corner) for corner in CUBE])
    torch.testing.assert_close(camera.project(torch.tensor(CUBE), WIDTH, HEIGHT), expected, atol=1e-3, rtol=0)


def test_the_field_of_view_is_over_the_smaller_side():
    tall, wide = FRONT.project(torch.tensor(CUBE), 100, 200), FRONT.project(torch.tensor(CUBE), 200, 100)
    torch.testing.assert_close(tall[:, 0] - 50, wide[:, 0] - 100)
    torch.testing.assert_close(tall[:, 1] - 100, wide[:, 1] - 50)


def test_it_is_the_projection_matrix_of_viewers():
    """OpenGL's and three.js' matrices, from clip space to pixels."""
    position, target, fov, near, far = (2.0, 3.0, 4.0), (0.2, 0.5, -1.0), 40.0, 0.5, 50.0
    camera = Camera(position, target, look_rotation(position, target), fov=fov, near=near, far=far)
    back = np.subtract(position, target) / math.dist(position, target)
    right = np.cross([0, 1, 0], back)
    right /= np.linalg.norm(right)
    view = np.eye(4)
    view[:3, :3] = np.stack([right, np.cross(back, right), back])
    view[:3, 3] = -view[:3, :3] @ position
    slope = math.tan(math.radians(fov) / 2)
    clip = np.array([
        [HEIGHT / WIDTH / slope, 0, 0, 0], [0, 1 / slope, 0, 0],
        [0, 0, (far + near) / (near - far), 2 * far * near / (near - far)], [0, 0, -1, 0],
    ])  # fmt: skip
    corners = np.concatenate([np.array(CUBE), np.ones((8, 1))], 1) @ (clip @ view).T
    screen = corners[:, :2] / corners[:, 3:]
    expected = np.stack([(screen[:, 0] + 1) * WIDTH / 2, (1 - screen[:, 1]) * HEIGHT / 2], 1)
    found = camera.project(torch.tensor(CUBE, dtype=torch.float64), WIDTH, HEIGHT)
    np.testing.assert_allclose(found[:, :2].numpy(), expected, atol=1e-3)


def test_a_camera_goes_through_comfyuis_dictionary_and_back():
    camera = Camera((1.0, 2.0, 3.0), (0.5, 0.0, 0.0), (0.0, HALF, 0.0, HALF), 50.0, 1.5, True, 0.1, 20.0)
    assert camera_from_dict(camera.to_dict(640, 480)) == camera


def test_a_dictionary_without_a_quaternion_looks_at_its_target():
    camera = camera_from_dict({"position": {"x": 3, "y": 1, "z": 0}, "target": {"x": 0, "y": 1, "z": 0}})
    middle = camera.project(torch.tensor([[0.0, 1, 0]]), WIDTH, HEIGHT)
    torch.testing.assert_close(middle, torch.tensor([[100.0, 50, 3]]))
    above = camera.project(torch.tensor([[0.0, 1.2, 0]]), WIDTH, HEIGHT)
    assert above[0, 1] < 50 and abs(float(above[0, 0]) - 100) < 1e-3


def test_looking_straight_down_has_an_up():
    camera = camera_from_dict({"position": {"x": 0, "y": 5, "z": 0}, "target": {"x": 0, "y": 0, "z": 0}})
    assert torch.isfinite(camera.axes).all() and torch.allclose(camera.axes[:, 2].float(), torch.tensor([0.0, 1, 0]))


BAD = {
    "near past far": {"near": 5, "far": 1},
    "near is 0": {"near": 0},
    "fov 0": {"fov": 0},
    "fov 180": {"fov": 180},
    "nan": {"zoom": float("nan")},
    "infinite": {"position": {"x": float("inf"), "y": 0, "z": 0}},
    "zoom 0": {"zoom": 0},
    "zero quaternion": {"quaternion": {"x": 0, "y": 0, "z": 0, "w": 0}},
    "words": {"fov": "wide"},
    "no vector": {"target": [0, 0, 0]},
    "a list for a quaternion": {"quaternion": [0, 0, 0, 1]},
    "on its target": {"target": {"x": 0, "y": 1, "z": 4}},
}


@pytest.mark.parametrize("name", BAD)
def test_cameras_that_show_nothing_are_refused(name):
    whole = {"position": {"x": 0, "y": 1, "z": 4}, "target": {"x": 0, "y": 1, "z": 0}}
    assert camera_from_dict(whole)
    with pytest.raises(SettingError, match="camera|quaternion"):
        camera_from_dict(whole | BAD[name])


@pytest.mark.parametrize("info", [None, {}, [], "camera", 7])
def test_what_is_no_camera_is_refused(info):
    with pytest.raises(SettingError, match="position"):
        camera_from_dict(info)


@pytest.mark.parametrize("move", MOVES)
def test_a_move_starts_at_the_camera_and_steps_evenly(move):
    amount = {"zoom": 4.0}.get(move, 1.2)
    cameras = move_camera(FRONT, move, amount, 5)
    assert cameras[0] == FRONT and len(cameras) == 5
    assert move_camera(FRONT, move, amount, 1) == (FRONT,)
    if move == "zoom":
        np.testing.assert_allclose([camera.zoom for camera in cameras], [1, 2**0.5, 2, 2**1.5, 4])
    elif move != "still":
        steps = [math.dist(a.position, b.position) for a, b in zip(cameras, cameras[1:])]
        np.testing.assert_allclose(steps, steps[0], atol=1e-9)


def test_where_moves_end():
    def end(move, amount):
        return move_camera(Camera((0.0, 1.0, 4.0), (0.0, 1.0, 0.0)), move, amount, 9)[-1]

    np.testing.assert_allclose(end("dolly", 1.5).position, (0, 1, 2.5), atol=1e-6)
    np.testing.assert_allclose(end("truck", 1.5).position, (1.5, 1, 4), atol=1e-6)
    np.testing.assert_allclose(end("truck", 1.5).target, (1.5, 1, 0), atol=1e-6)
    np.testing.assert_allclose(end("crane", -0.5).position, (0, 0.5, 4), atol=1e-6)
    orbited = end("orbit", 90)
    np.testing.assert_allclose(orbited.position, (4, 1, 0), atol=1e-6)
    np.testing.assert_allclose(np.abs(orbited.quaternion), (0, HALF, 0, HALF), atol=1e-6)
    # The target stays in the middle all the way round.
    for camera in move_camera(Camera((0.0, 1.0, 4.0), (0.0, 1.0, 0.0)), "orbit", 360, 7):
        torch.testing.assert_close(camera.project(torch.tensor([0.0, 1, 0]), 64, 64), torch.tensor([32.0, 32, 4]))


def test_moves_that_cannot_be_made():
    for move, amount, frames in [
        ("swoop", 1, 4),
        ("zoom", 0, 4),
        ("zoom", -1, 4),
        ("dolly", math.nan, 4),
        ("still", 0, 0),
    ]:
        with pytest.raises(SettingError):
            move_camera(FRONT, move, amount, frames)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (160, 64), (64, 160)])
def test_framing_shows_all_points_and_fills_the_picture(width, height):
    points = torch.randn(13, 500, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.3, 0.9, 0.2])
    size = torch.tensor([width, height])
    for orbit in (0.0, 50.0, 360.0):
        cameras = move_camera(framing_camera(points, width, height, orbit=orbit), "orbit", orbit, 13)
        seen = torch.stack([camera.project(p, width, height) for camera, p in zip(cameras, points)])
        share = ((seen[..., :2] - size / 2).abs() / (size / 2)).amax()
        assert 0.8 < float(share) < 0.95


def test_framing_knows_which_way_the_camera_goes_round():
    # In the last frame a bar, seen end on: half its length off is enough. From the other side it would fill the view.
    points = torch.zeros(3, 2, 3)
    points[2] = torch.tensor([[-1.0, 0, -1], [1, 0, 1]])
    camera = framing_camera(points, 64, 64, orbit=45.0)
    assert math.dist(camera.position, camera.target) == pytest.approx(2**0.5, abs=1e-5)
