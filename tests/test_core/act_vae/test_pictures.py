"""Pictures for P2I and its training: cut, fitted and learned from as the authors do, whole after any stop."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from act_vae_data import put_list
from torch.testing import assert_close

from flexiact_core.act_vae.fit_images import ImageSizes, _new_networks, _prepare, fit_pose_to_image, states_of_images
from flexiact_core.act_vae.loading import CRITIC, GENERATOR, LATENTS, POSES, make_model
from flexiact_core.act_vae.losses import adversarial_loss, critic_loss, generator_losses
from flexiact_core.act_vae.pictures import BORDER_COLOUR, PictureClip, fit_picture, read_clip, to_frames
from flexiact_core.act_vae.pose_to_image import draw_heat_maps
from flexiact_core.act_vae.released_list import read_rows
from flexiact_core.act_vae.render import compare_row, read_test_row, render_poses
from flexiact_core.act_vae.source import standing_source
from flexiact_core.errors import FileError, SettingError, ShapeError
from flexiact_core.poses.sequence import PoseSequence
from flexiact_core.poses.skeletons import PENN13
from flexiact_core.training import Course, StopTraining, load_state, save_state

SIZES = ImageSizes(4, 1, 4, 1)
SETTINGS = {"steps": 6, "learning_rate": 2e-4, "seed": 0, "device": torch.device("cpu"), "sizes": SIZES}


@pytest.fixture(scope="module")
def model(small_parts):
    return make_model(small_parts, name="small")


def test_a_wide_box_is_centred_on_the_released_colour():
    image = torch.zeros(40, 100, 3)
    image[:, :, 0] = torch.linspace(0, 1, 100)
    square = fit_picture(image, torch.tensor([0.0, 0.0, 100.0, 40.0]), 50)
    colour = torch.tensor(BORDER_COLOUR) / 255 * 2 - 1
    # 100 x 40 becomes 50 x 20, with 15 rows of border above and below.
    assert_close(square[:, 14, 7], colour)
    assert_close(square[:, 35, 7], colour)
    assert_close(square[0, 15:35], (image[:40:2, :, 0].view(20, 50, 2).mean(-1)) * 2 - 1)


def test_a_box_that_reaches_out_of_the_picture_is_filled():
    square = fit_picture(torch.ones(10, 10, 3), torch.tensor([-10.0, 0.0, 10.0, 20.0]), 20)
    assert square[:, :10, 10:].min() == 1
    assert_close(square[:, 0, 0], torch.tensor(BORDER_COLOUR) / 255 * 2 - 1)
    with pytest.raises(ShapeError, match="outside its 10x10"):
        fit_picture(torch.ones(10, 10, 3), torch.tensor([20.0, 0.0, 30.0, 10.0]))


def test_where_a_picture_is_transparent_the_border_is_seen():
    image = torch.cat([torch.ones(8, 8, 3), torch.zeros(8, 8, 1)], -1)
    image[:, 4:, 3] = 1
    square = fit_picture(image, torch.tensor([0.0, 0.0, 8.0, 8.0]), 8)
    assert_close(square[:, 0, 0], torch.tensor(BORDER_COLOUR) / 255 * 2 - 1)
    assert square[:, :, 4:].min() == 1


def test_a_row_of_the_list_comes_with_its_pictures_and_people(tmp_path):
    path, pictures = put_list(tmp_path)
    row = read_rows(path)[1]
    clip = read_clip(row, pictures, 64)
    assert clip.pictures.shape == (6, 3, 64, 64) and clip.people.shape == (5, 1, 64, 64) and clip.action == 1
    # The pictures are of one colour each: 40 times the clip's number, 40 times the frame's, 128.
    shown = (to_frames(clip.pictures) * 255).round()
    assert_close(shown[:, 32, 32], torch.tensor([[40.0, 40.0 * frame, 128.0] for frame in range(6)]), atol=4, rtol=0)
    # Of a box 190 px wide and 180 high, 64 px of which one is 2.97 of the picture's.
    wide = float(row.people[0][2] - row.people[0][0]) * 64 / 190
    assert abs(float(clip.people[0, 0].sum(-1).max()) - wide) <= 2
    with pytest.raises(FileError, match="a picture of the list is not in this folder"):
        read_clip(row, tmp_path / "none")


def draw_random(generator: torch.Generator) -> list[PictureClip]:
    def one(action: int) -> PictureClip:
        return PictureClip(
            torch.rand(6, 3, 16, 16, generator=generator) * 2 - 1,
            torch.rand(6, 13, 2, generator=generator) * 1.8 - 0.9,
            (torch.rand(5, 1, 16, 16, generator=generator) > 0.5).float(),
            action,
        )

    return [one(2), one(5)]


def learn(model, **changes):
    settings = SETTINGS | changes
    names = {field.name for field in fields(Course)}
    course = Course(**{name: settings.pop(name) for name in names & settings.keys()})
    return fit_pose_to_image(draw_random, model, course, **settings)


def test_the_four_steps_of_an_iteration_are_the_authors(model):
    """Written out: the critic on a true and on a predicted pose, then the generator on both, each with its Adam."""
    state = learn(model, steps=4)
    fresh = _new_networks(9, SIZES, torch.Generator().manual_seed(0), torch.device("cpu"))
    painter, critic = fresh[GENERATOR], fresh[CRITIC]
    own = torch.Generator().manual_seed(1)
    now = _prepare(draw_random(own), model.predictor, own, torch.device("cpu"))
    settings = {"lr": 2e-4, "betas": (0.5, 0.999), "weight_decay": 1e-4}
    adams = {name: torch.optim.Adam(net.parameters(), **settings) for name, net in fresh.items()}

    def update(name: str, loss: torch.Tensor) -> float:
        adams[name].zero_grad()
        loss.backward()
        adams[name].step()
        return loss.item()

    def made(maps: torch.Tensor) -> torch.Tensor:
        return painter(now.source, now.source_maps, maps, now.action)

    losses = [
        update(CRITIC, critic_loss(critic, made(now.maps), now.maps, now.target, now.maps)),
        update(CRITIC, critic_loss(critic, made(now.guessed_maps), now.guessed_maps, now.later, now.later_maps)),
        update(GENERATOR, sum(generator_losses(critic, made(now.maps), now.target, now.maps, now.person).values())),
        update(GENERATOR, adversarial_loss(critic, made(now.guessed_maps), now.guessed_maps)),
    ]
    assert_close(state.losses, torch.tensor(losses, dtype=torch.float64), rtol=1e-5, atol=0)
    learned = states_of_images(state)
    for name, network in fresh.items():
        for key, value in network.state_dict().items():
            assert_close(learned[name][key], value, rtol=1e-4, atol=1e-6)


def test_the_predictor_is_left_as_it_is_and_a_guess_is_one_of_its_steps(model):
    before = {key: value.clone() for key, value in model.predictor.state_dict().items()}
    learn(model, steps=4)
    for key, value in model.predictor.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("stop_after", [1, 2, 4, 5])
def test_a_training_stopped_anywhere_in_an_iteration_goes_on_bit_for_bit(model, tmp_path, stop_after):
    whole = learn(model)

    def stop(step, loss, take_state):
        if step + 1 == stop_after:
            raise StopTraining

    stopped, _ = load_state(save_state(learn(model, on_step=stop), tmp_path / "state.safetensors", {}))
    assert stopped.steps_done == stop_after
    resumed = learn(model, resume=stopped)
    assert torch.equal(resumed.losses, whole.losses)
    for mine, theirs in ((resumed.parameters, whole.parameters), (resumed.buffers, whole.buffers)):
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_what_was_learned_loads_as_a_model_that_draws(model, small_parts):
    states = states_of_images(learn(model, steps=4))
    parts = {POSES: small_parts[POSES], LATENTS: small_parts[LATENTS], **states}
    learned = make_model(parts)
    assert learned.generator is not None and learned.critic is not None
    assert int(states[GENERATOR]["model_stream1_down.2.num_batches_tracked"]) == 4


def walking(frames: int, canvas=(400, 400)) -> PoseSequence:
    points = standing_source(*canvas).points.repeat(frames, 1, 1, 1)
    points[:, :, 6] += torch.linspace(0, 30, frames)[:, None, None]
    return PoseSequence(points, torch.ones(frames, 1, 13), canvas, 8.0, PENN13)


def test_frames_are_the_networks_pictures_in_the_box_of_all_poses(model):
    from flexiact_core.act_vae.letterbox import grow_box, person_box, to_box

    source, poses = standing_source(400, 400), walking(3)
    image = torch.rand(1, 400, 400, 3, generator=torch.Generator().manual_seed(0))
    frames = render_poses(model, image, source, poses, "squat")
    joints = torch.cat([source.points[None], poses.points[:, 0]])
    box = grow_box(person_box(joints.flatten(0, 1)), model.margin)
    maps = draw_heat_maps(to_box(joints, box))
    with torch.no_grad():
        expected = model.generator(
            fit_picture(image[0], box)[None], maps[:1], maps[2:3], torch.tensor([model.actions.index("squat")])
        )
    assert frames.shape == (3, 128, 128, 3)
    assert_close(frames[1], to_frames(expected)[0], atol=1e-5, rtol=0)


def test_a_picture_of_another_size_than_its_poses_canvas_is_the_same_picture(model):
    """Poses are scaled to the picture: one of half the size, with poses found in the whole, draws the same."""
    image = torch.ones(1, 200, 200, 3) * torch.tensor([0.9, 0.2, 0.4])
    large = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    poses, source = walking(2), standing_source(400, 400)
    first, second = (render_poses(model, picture, source, poses, "squat") for picture in (image, large))
    # The box ends on a whole pixel of either picture, so that an edge may lie one pixel of 128 elsewhere.
    assert ((first - second).abs() < 0.02).float().mean() > 0.98


def test_a_model_without_p2i_or_the_action_is_said(model, small_parts):
    bare = make_model({part: small_parts[part] for part in (POSES, LATENTS)}, name="bare")
    source, image = standing_source(64, 64), torch.zeros(1, 64, 64, 3)
    with pytest.raises(SettingError, match="bare has no pose-to-image network. Put the release's generator.pt"):
        render_poses(bare, image, source, walking(2), "squat")
    with pytest.raises(SettingError, match="action 'walk'"):
        render_poses(model, image, source, walking(2), "walk")
    nobody = PoseSequence(torch.zeros(2, 1, 13, 2), torch.zeros(2, 1, 13), (64, 64), 8.0, PENN13)
    with pytest.raises(ShapeError, match="poses, frame 1: no whole person"):
        render_poses(model, image, source, nobody, "squat")


def test_the_authors_test_of_a_row_shows_true_predicted_and_generated(model, tmp_path):
    path, pictures = put_list(tmp_path)
    clip = read_test_row(path, pictures, 2)
    picture = compare_row(model, clip, seed=1)
    # Three rows of four pictures of 128 px with a border of 2.
    assert picture.shape == (1, 3 * 132, 4 * 132, 3)
    assert_close(picture[0, 2:130, 2:130], to_frames(clip.pictures[1:2])[0], atol=1e-3, rtol=0)
    assert torch.equal(picture, compare_row(model, clip, seed=1))
    for row in (0, 7):
        with pytest.raises(SettingError, match="has rows 1 to 6"):
            read_test_row(path, pictures, row)
