"""Who the small people are and what they do."""

import numpy as np
import pytest
import torch

from flexiact_core.act_vae.figures import ACTIONS, JOINTS
from flexiact_core.world.actors import (
    HELD_OUT_CLOTHES,
    NUM_FRAMES,
    PAN_PX,
    SHIRTS,
    TRAINED_CLOTHES,
    TROUSERS,
    VERBS,
    act_out,
    actor_caption,
    actor_vocabulary,
    joints_px,
    pan_of,
    poses_of,
    sample_actor,
    sample_performance,
)
from flexiact_core.world.making.models import MAX_TEXT_TOKENS, make_tokenizer


def test_the_same_seed_is_the_same_person_and_held_out_clothes_are_never_trained():
    assert sample_actor(3) == sample_actor(3) != sample_actor(4)
    assert not set(HELD_OUT_CLOTHES) & set(TRAINED_CLOTHES)
    assert {pair for pair in TRAINED_CLOTHES} | set(HELD_OUT_CLOTHES) == {(s, t) for s in SHIRTS for t in TROUSERS}
    worn = {(actor.shirt, actor.trousers) for actor in map(sample_actor, range(100))}
    assert worn == set(TRAINED_CLOTHES)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_begins_at_rest_and_then_moves(action):
    actor = sample_actor(1)
    joints, rest = joints_px(actor, act_out(action)), joints_px(actor, act_out(None))
    torch.testing.assert_close(joints[0], rest[0])
    assert (rest == rest[0]).all()
    # From the front a walk is seen least.
    assert (joints - rest)[..., :2].norm(dim=-1).amax() > (2.5 if action == "walk" else 8)


@pytest.mark.parametrize("seed", range(40))
def test_training_shows_people_who_are_whole_and_begin_at_rest(seed):
    actor, (performance, _, _) = sample_actor(seed), sample_performance(np.random.default_rng(seed))
    joints = joints_px(actor, performance)
    torch.testing.assert_close(joints[0], joints_px(actor, act_out(None))[0])
    assert len(joints) == NUM_FRAMES
    assert joints[..., 0].min() > 0 and joints[..., 0].max() < 64
    assert joints[..., 1].min() > 0 and joints[..., 1].max() < 62


def test_a_person_stands_upright_on_the_ground():
    actor = sample_actor(2)
    place = dict(zip(JOINTS, joints_px(actor, act_out(None))[0], strict=True))
    assert place["head"][1] < place["left_hip"][1] < place["left_knee"][1] < place["left_ankle"][1]
    assert float(torch.maximum(place["left_ankle"][1], place["right_ankle"][1])) == pytest.approx(actor.ground, abs=0.1)


def test_a_camera_to_the_right_moves_as_far_as_one_to_the_left():
    assert pan_of("right")[0] == 0 and float(pan_of("right")[-1]) == pytest.approx(PAN_PX)
    torch.testing.assert_close(pan_of("left"), -pan_of("right"))
    assert not pan_of(None).any()


def test_poses_are_the_joints_on_a_canvas_of_the_frames_size():
    actor, performance = sample_actor(5), act_out("wave")
    poses = poses_of(actor, performance)
    torch.testing.assert_close(poses.points[:, 0], joints_px(actor, performance)[..., :2])
    assert poses.canvas == (64, 64) and poses.fps == 16


def test_every_caption_is_known_words_that_are_not_cut():
    tokenizer, unknown = make_tokenizer(actor_vocabulary()), 2
    for action in (None, *VERBS):
        for camera in (None, "left", "right"):
            tokens = tokenizer(actor_caption(sample_actor(0), action, camera)).input_ids
            assert unknown not in tokens and len(tokens) <= MAX_TEXT_TOKENS
    assert len({actor_caption(sample_actor(0), action) for action in VERBS}) == len(VERBS)
