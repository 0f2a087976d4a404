"""Who and what the small people's base is measured with."""

import torch

from flexiact_core.act_vae.figures import ACTIONS
from flexiact_core.act_vae.loading import load_act_vae
from flexiact_core.world import shipped
from flexiact_core.world.actor_cases import (
    draw_predicted,
    driving,
    example_case,
    make_actor_cases,
    picture_of,
    predicted_poses,
)
from flexiact_core.world.actor_render import render_actor
from flexiact_core.world.actors import HELD_OUT_CLOTHES, NUM_FRAMES


def test_every_case_is_another_person_in_clothes_that_no_training_showed():
    cases = make_actor_cases(2)
    assert [case.action for case in cases] == list(ACTIONS) * 2
    assert len({case.actor for case in cases}) == len(cases)
    assert all((case.actor.shirt, case.actor.trousers) in HELD_OUT_CLOTHES for case in cases)


def test_the_picture_is_where_the_true_video_begins_and_poses_are_as_many_as_frames():
    case = example_case(3, "kick")
    torch.testing.assert_close(picture_of(case.actor), render_actor(case.actor, case.performance)[:1])
    assert driving(case).shape == (NUM_FRAMES, 64, 64, 3)


def test_what_act_vae_predicts_begins_in_the_pose_of_the_picture():
    case = example_case(1, "squat")
    model = load_act_vae(shipped.WEIGHTS / "act_vae" / "figures.safetensors")
    drawn, other = (draw_predicted(predicted_poses(case, model, action)) for action in ("squat", "jumping_jacks"))
    assert drawn.shape == (NUM_FRAMES, 64, 64, 3)
    torch.testing.assert_close(drawn[0], driving(case)[0])
    assert (drawn[-1] != other[-1]).any()
