"""What is drawn: silhouettes, depth, colours and edges, against areas and colours worked out by hand."""

import math

import pytest
import torch

from flexiact_core.avatars.avatar import Material
from flexiact_core.avatars.camera import Camera
from flexiact_core.avatars.colours import hex_colour, to_linear, to_srgb
from flexiact_core.avatars.raster import Mesh, draw, is_inside, joined
from flexiact_core.errors import SettingError

FRONT = Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), fov=90)
RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def mesh(points, faces, colour=(1.0, 1.0, 1.0), uvs=None, **material):
    count = len(points)
    return Mesh(
        torch.tensor(faces),
        torch.tensor(colour).expand(count, 3).clone(),
        torch.zeros(count, 2) if uvs is None else torch.tensor(uvs),
        torch.zeros(len(faces), dtype=torch.long),
        (Material(**material),),
    )


def square(side=1.0, z=0.0, x=0.0):
    """Two triangles that face the camera."""
    h = side / 2
    points = torch.tensor([[x - h, -h, z], [x + h, -h, z], [x + h, h, z], [x - h, h, z]])
    return points, [[0, 1, 2], [0, 2, 3]]


def sphere(rings=48):
    u = torch.linspace(0, math.pi, rings + 1)
    v = torch.linspace(0, 2 * math.pi, 2 * rings + 1)
    u, v = torch.meshgrid(u, v, indexing="ij")
    points = torch.stack([u.sin() * v.sin(), u.cos(), u.sin() * v.cos()], -1).reshape(-1, 3)
    wide = 2 * rings + 1
    corners = [(row * wide + column) for row in range(rings) for column in range(2 * rings)]
    return points, [face for a in corners for face in ((a, a + wide, a + 1), (a + 1, a + wide, a + wide + 1))]


def colour_at(frame, y, x):
    """Red, green and blue, to the fourth place: 1 comes out as 0.99999994."""
    return [round(value, 4) for value in frame[y, x].tolist()]


def shown(points, faces, camera=FRONT, size=64, colour=(1.0, 1.0, 1.0), normals=None, **how):
    material = {
        key: how.pop(key) for key in ("texture", "cutoff", "alpha", "double_sided", "unlit", "uvs") if key in how
    }
    made = mesh(points, faces, colour, **material)
    normals = torch.tensor([0.0, 0, 1]).expand(len(points), 3) if normals is None else normals
    return draw(made, points, normals, camera, size, size, **{"light": 0.0} | how)


@pytest.mark.parametrize("orthographic", [False, True])
def test_a_square_covers_the_pixels_that_it_should(orthographic):
    # 32 pixels a unit at distance 1, so 8 at distance 4.
    camera = Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), fov=90, orthographic=orthographic)
    _, mask = shown(*square(4.0), camera)
    expected = torch.zeros(64, 64)
    expected[16:48, 16:48] = 1
    torch.testing.assert_close(mask, expected)


def test_a_spheres_silhouette_has_the_area_of_its_cone():
    points, faces = sphere()
    camera = Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), fov=40)
    _, mask = shown(points, faces, camera, 256, normals=points)
    # Half angle asin(1 / 4): a circle of radius focal * tan(half angle).
    expected = math.pi * camera.focal_px(256, 256) ** 2 / 15
    assert float(mask.sum()) == pytest.approx(expected, rel=0.004)


def test_an_orthographic_sphere_is_a_circle():
    points, faces = sphere()
    camera = Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), fov=40, orthographic=True)
    _, mask = shown(points, faces, camera, 256, normals=points)
    assert float(mask.sum()) == pytest.approx(math.pi * camera.focal_px(256, 256) ** 2, rel=0.004)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("orthographic", [False, True])
def test_nearer_hides_farther_in_any_order(order, orthographic):
    near, far = square(1.0, z=1.0), square(4.0, z=-1.0)
    things = [(near, RED), (far, GREEN)][:: 1 - 2 * order]
    whole = joined([mesh(points, faces, colour) for (points, faces), colour in things])
    points = torch.cat([points for (points, _), _ in things])
    camera = Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), fov=90, orthographic=orthographic)
    frame, _ = draw(whole, points, torch.zeros_like(points), camera, 64, 64, light=0.0)
    assert colour_at(frame, 32, 32) == [1, 0, 0] and colour_at(frame, 32, 25) == [0, 1, 0]


def test_two_that_cross_meet_where_they_are_equally_far():
    # One leans to the left, the other to the right: each is in front on its side.
    left = torch.tensor([[-1.0, -1, 1], [1, -1, -1], [1, 1, -1], [-1, 1, 1]])
    right = left * torch.tensor([1.0, 1, -1])
    faces = [[0, 1, 2], [0, 2, 3]]
    whole = joined([mesh(left, faces, RED), mesh(right, faces, GREEN)])
    points = torch.cat([left, right])
    frame, _ = draw(whole, points, torch.zeros_like(points), FRONT, 64, 64, light=0.0)
    assert [colour_at(frame, 32, x) for x in range(24, 40)] == 8 * [[1, 0, 0]] + 8 * [[0, 1, 0]]


def test_of_two_at_the_same_place_the_first_is_seen():
    points, faces = square(2.0)
    for colours in ((RED, GREEN), (GREEN, RED)):
        whole = joined([mesh(points, faces, colour) for colour in colours])
        frame, _ = draw(whole, points.repeat(2, 1), torch.zeros(8, 3), FRONT, 64, 64, light=0.0)
        assert colour_at(frame, 32, 32) == list(colours[0])


def test_backs_are_left_out_save_of_double_sided_materials():
    points, faces = square(2.0)
    turned = [face[::-1] for face in faces]
    assert shown(points, turned)[1].sum() == 0
    assert shown(points, turned, double_sided=True)[1].sum() == shown(points, faces)[1].sum() > 0


@pytest.mark.parametrize("antialias", [1, 2, 4])
def test_an_edge_through_a_pixel_covers_its_share(antialias):
    # The right edge at pixel 32 + 8 * 0.5625 = 36.5, in the middle of pixel 36.
    _, mask = shown(*square(1.125), antialias=antialias)
    assert float(mask[32, 36]) == pytest.approx({1: 1.0, 2: 0.5, 4: 0.5}[antialias])


def test_no_sample_is_lost_or_counted_twice_between_triangles():
    generator = torch.Generator().manual_seed(4)
    grid = torch.stack(torch.meshgrid(torch.linspace(-3, 3, 23), torch.linspace(-3, 3, 23), indexing="xy"), -1)
    inner = grid[1:-1, 1:-1]
    inner += 0.1 * (torch.rand(inner.shape, generator=generator) - 0.5)
    points = torch.cat([grid.reshape(-1, 2), torch.zeros(23 * 23, 1)], 1)
    faces = []
    for row in range(22):
        for column in range(22):
            a = row * 23 + column
            faces += [[a, a + 1, a + 24], [a, a + 24, a + 23]]
    _, mask = shown(points, faces, size=128)
    expected = torch.zeros(128, 128)
    expected[16:112, 16:112] = 1
    torch.testing.assert_close(mask, expected)


def test_colours_run_straight_over_the_surface_not_over_the_picture():
    """A floor that goes away: at the height of its middle in the picture it is nearer to the near end."""
    points = torch.tensor([[-2.0, -1, 2], [2, -1, 2], [2, -1, -8], [-2, -1, -8]])
    made = mesh(points, [[0, 1, 2], [0, 2, 3]])
    made.colours[:2], made.colours[2:] = 0.0, 1.0
    frame, _ = draw(made, points, torch.zeros(4, 3), FRONT, 64, 64, light=0.0, antialias=1)
    for y in (36, 40, 46):
        depth = 32 / (y + 0.5 - 32)  # one unit below the camera, 32 pixels a unit at distance 1
        share = (depth - 2) / 10
        expected = to_srgb(torch.tensor(share))
        assert float(frame[y, 32, 0]) == pytest.approx(float(expected), abs=1e-3)


def test_a_triangle_that_goes_behind_the_camera_is_cut_not_lost():
    # A floor from 10 units ahead to 10 behind fills all of the lower half that is farther than the near plane.
    points = torch.tensor([[-50.0, -1, 14], [50, -1, 14], [50, -1, -46], [-50, -1, -46]])
    _, mask = shown(points, [[0, 1, 2], [0, 2, 3]], antialias=1)
    assert mask[:32].sum() == 0 and mask[34:].min() == 1


def test_what_is_behind_or_too_far_is_not_drawn():
    assert shown(*square(2.0, z=5.0))[1].sum() == 0
    assert shown(*square(2.0), Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), far=3.0))[1].sum() == 0
    frame, mask = shown(*square(2.0, x=100.0), background=(0.25, 0.5, 0.75))
    assert mask.sum() == 0
    torch.testing.assert_close(frame, torch.tensor([0.25, 0.5, 0.75]).expand(64, 64, 3), atol=1e-5, rtol=0)


def test_edges_mix_light_not_numbers():
    frame, mask = shown(*square(1.125))
    assert float(mask[32, 36]) == 0.5
    # Half the light of white is 0.735 in sRGB, not 0.5.
    assert float(frame[32, 36, 0]) == pytest.approx(0.7354, abs=1e-3)


def test_a_texture_is_placed_by_its_coordinates():
    texture = torch.tensor([[[255, 0, 0, 255], [0, 255, 0, 255]], [[0, 0, 255, 255], [255, 255, 255, 255]]]).byte()
    points, faces = square(4.0)
    uvs = [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]  # v runs down
    frame, _ = shown(points, faces, texture=texture.repeat_interleave(8, 0).repeat_interleave(8, 1), uvs=uvs)
    quarters = [colour_at(frame, y, x) for y, x in ((20, 20), (20, 44), (44, 20), (44, 44))]
    assert quarters == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]


def test_what_is_see_through_shows_what_is_behind():
    texture = torch.tensor([[[255, 0, 0, 255], [255, 0, 0, 0]]]).byte().repeat_interleave(8, 1)
    points, faces = square(4.0)
    uvs = [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    front = mesh(points, faces, uvs=uvs, texture=texture, cutoff=0.5)
    behind = mesh(square(8.0, z=-1.0)[0], faces, GREEN)
    whole = joined([front, behind])
    frame, _ = draw(whole, torch.cat([points, square(8.0, z=-1.0)[0]]), torch.zeros(8, 3), FRONT, 64, 64, light=0.0)
    assert colour_at(frame, 32, 20) == [1, 0, 0] and colour_at(frame, 32, 44) == [0, 1, 0]
    assert shown(points, faces, alpha=0.2, cutoff=0.5)[1].sum() == 0


def test_light_makes_what_faces_it_brighter_and_leaves_unlit_materials():
    points, faces = square(2.0)

    def level(normal, **how):
        grey = {"colour": (0.5, 0.5, 0.5)}
        return float(shown(points, faces, normals=torch.tensor(normal).expand(4, 3), **grey | how)[0][32, 32, 0])

    plain = level([0.0, 1, 0], light=0.0)
    assert plain == pytest.approx(float(to_srgb(torch.tensor(0.5))), abs=1e-5)
    assert level([0.0, 1, 0], light=1.0) > level([0.0, 0, 1], light=1.0) > level([0.0, -1, 0], light=1.0) > 0.2
    assert level([0.0, -1, 0], light=1.0, unlit=True) == pytest.approx(plain, abs=1e-6)


def test_the_same_scene_gives_the_same_bytes():
    points, faces = sphere(24)
    generator = torch.Generator().manual_seed(0)
    made = mesh(points, faces)
    made.colours[:] = torch.rand(made.colours.shape, generator=generator)
    first, second = (draw(made, points, points, FRONT, 96, 96) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_chunks_change_nothing(monkeypatch):
    points, faces = sphere(24)
    whole = shown(points, faces, normals=points, size=96, light=0.5)
    monkeypatch.setattr("flexiact_core.avatars.raster.CHUNK", 50)
    for ours, theirs in zip(shown(points, faces, normals=points, size=96, light=0.5), whole):
        assert torch.equal(ours, theirs)


def test_a_place_is_inside_a_closed_surface_or_not():
    points, faces = sphere(12)
    faces = torch.tensor(faces)
    assert is_inside((0.0, 0.0, 0.0), points, faces) and is_inside((0.5, 0.4, 0.3), points, faces)
    assert not is_inside((0.0, 0.0, 1.5), points, faces)
    # A room's walls face inwards.
    assert not is_inside((0.0, 0.0, 0.0), points, faces.flip(1))


@pytest.mark.parametrize("text", ["", "red", "#12345", "#1234567", "#gggggg", None])
def test_words_that_are_no_colour(text):
    with pytest.raises(SettingError, match="no colour"):
        hex_colour(text)


def test_colours_of_widgets_and_back():
    assert hex_colour("#ff0080") == (1.0, 0.0, 128 / 255) and hex_colour("f08") == (1.0, 0.0, 136 / 255)
    values = torch.linspace(0, 1, 50)
    torch.testing.assert_close(to_srgb(to_linear(values)), values, atol=1e-5, rtol=0)
    assert float(to_linear(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-5)
