"""A dog and a bird that do on their own skeletons what a person does."""

import pytest
import torch

from flexiact_core.act_vae.figures import ACTIONS, JOINTS, draw_body, joints_of
from flexiact_core.world.actor_measure import measure_actor
from flexiact_core.world.actor_render import PARTS, cover_of, render_actor
from flexiact_core.world.actors import FRAME_PX, act_out, actor_caption, joints_px, sample_actor
from flexiact_core.world.bodies import KINDS, PERSON, joints_of_kind

ANIMALS = [kind for kind in KINDS if kind != PERSON]


def at_rest(kind, seed=1):
    actor = sample_actor(seed, kind=kind)
    return dict(zip(JOINTS, joints_of_kind(kind, act_out(None, frames=1).postures, dict(actor.body))[0], strict=True))


def test_a_person_is_the_figure_itself():
    postures, body = act_out("kick").postures, draw_body(torch.Generator().manual_seed(0))
    assert torch.equal(joints_of_kind(PERSON, postures, body), joints_of(postures, body))


def test_a_dog_stands_on_four_feet_with_its_back_level_and_its_head_ahead():
    place = at_rest("dog")
    for foot in ("left_wrist", "right_wrist", "left_ankle", "right_ankle"):
        assert place[foot][1] < 0.12
    hip, shoulder, head = place["right_hip"], place["right_shoulder"], place["head"]
    assert abs(hip[1] - shoulder[1]) < 0.45 * (shoulder[2] - hip[2]) and head[2] > shoulder[2] + 0.1
    assert hip[1] > 0.3


def test_a_bird_stands_on_two_feet_leaning_with_its_wings_off_the_ground():
    place = at_rest("bird")
    assert max(place[f"{side}_ankle"][1] for side in ("left", "right")) < 0.05
    assert min(place[f"{side}_wrist"][1] for side in ("left", "right")) > 0.1
    lean = place["right_shoulder"] - place["right_hip"]
    assert 0.5 < lean[2] / lean[1] < 1.5


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("kind", ANIMALS)
def test_every_action_begins_at_rest_moves_and_stays_in_the_picture(kind, action):
    for seed in range(10):
        actor = sample_actor(seed, kind=kind)
        joints, rest = joints_px(actor, act_out(action)), joints_px(actor, act_out(None))
        torch.testing.assert_close(joints[0], rest[0])
        assert (joints - rest)[..., :2].norm(dim=-1).amax() > (4 if action == "walk" else 8)
        assert 1 < joints[..., :2].min() and joints[..., :2].max() < FRAME_PX - 1


@pytest.mark.parametrize("kind", ANIMALS)
def test_true_videos_are_told_apart_by_action_and_a_still_one_is_no_action(kind):
    actor = sample_actor(3, kind=kind)  # one, whose true courses are drawn once
    for action in ACTIONS:
        performance = act_out(action)
        seen = measure_actor(render_actor(actor, performance), actor, performance)
        assert seen.nearest == action and seen.follow > 0.9
        still = measure_actor(render_actor(actor, act_out(None)), actor, performance)
        assert abs(still.limbs) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_animals_have_a_tail_and_a_snout_and_people_have_none(kind):
    covered = cover_of(sample_actor(2, kind=kind), act_out(None, frames=1))[0].sum((-1, -2))
    shown = {end: bool(covered[number] > 5) for number, (_, end, *_) in enumerate(PARTS)}
    # At rest a bird's wing lies over its tail.
    assert shown["snout"] == (kind != PERSON) and shown["tail"] == (kind == "dog")


def test_captions_say_what_kind_it_is():
    assert [actor_caption(sample_actor(0, kind=kind)).split()[1] for kind in KINDS] == list(KINDS)
