"""The measure of the small people, on videos whose truth is known."""

import pytest
import torch

from flexiact_core.act_vae.figures import ACTIONS
from flexiact_core.world.actor_measure import (
    follow_share,
    measure_actor,
    nearest_action,
    read_joints,
    read_pan,
    true_joints,
)
from flexiact_core.world.actor_render import render_actor
from flexiact_core.world.actors import HELD_OUT_CLOTHES, act_out, sample_actor


def actor_of(number):
    return sample_actor(900 + number, HELD_OUT_CLOTHES)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_true_video_is_measured_as_true_though_it_is_noisy(action):
    actor, performance = actor_of(len(action)), act_out(action, camera="left")
    frames = render_actor(actor, performance)
    frames = frames + 0.03 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    seen = measure_actor(frames, actor, performance)
    assert seen.follow >= 0.97 and seen.nearest == action
    assert seen.limbs == pytest.approx(1, abs=0.08) and seen.pan == pytest.approx(-14, abs=1)


def test_joints_are_read_within_half_a_pixel():
    actor, performance = actor_of(0), act_out("jumping_jacks")
    points, found = read_joints(render_actor(actor, performance), actor)
    true, seen = true_joints(actor, performance)
    assert found[seen].all() and (points - true)[seen].norm(dim=-1).median() < 0.5


def test_a_still_picture_follows_nothing_and_moves_no_limb():
    actor, performance = actor_of(1), act_out("jumping_jacks")
    still = render_actor(actor, act_out(None))
    seen = measure_actor(still, actor, performance)
    assert seen.follow < 0.65 and abs(seen.limbs) < 0.1 and seen.pan == 0
    assert follow_share(still, actor, act_out(None)) == 1


def test_another_action_is_not_followed():
    actor = actor_of(2)
    frames = render_actor(actor, act_out("lunge"))
    assert follow_share(frames, actor, act_out("jumping_jacks")) < 0.65
    assert nearest_action(*read_joints(frames, actor), actor) == "lunge"


def test_a_joint_that_is_gone_is_not_found():
    actor = actor_of(3)
    frames = render_actor(actor, act_out("wave"))
    ground = frames[:, :1, :1].expand_as(frames)
    _, found = read_joints(ground, actor)
    assert not found.any()
    assert follow_share(ground, actor, act_out("wave")) == 0


@pytest.mark.parametrize(("camera", "sign"), [("right", 1), ("left", -1), (None, 0)])
def test_the_camera_is_read_whatever_the_person_does(camera, sign):
    actor = actor_of(4)
    pan = read_pan(render_actor(actor, act_out("squat", camera=camera)), actor)
    assert float(pan[-1]) == pytest.approx(14 * sign, abs=0.5)
