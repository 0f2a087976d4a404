"""How the small people look."""

import numpy as np
import torch

from flexiact_core.act_vae.figures import JOINTS
from flexiact_core.world.actor_render import (
    PARTS,
    actor_mask,
    colours_of,
    cover_of_parts,
    draw_actor_poses,
    render_actor,
    render_ground,
)
from flexiact_core.world.actors import MARKERS, act_out, joints_px, sample_actor


def test_a_clip_is_pixels_and_the_background_is_seen_where_nobody_is():
    actor, performance = sample_actor(0), act_out("jumping_jacks", camera="right")
    frames = render_actor(actor, performance)
    assert frames.shape == (21, 64, 64, 3) and 0 <= frames.min() and frames.max() <= 1
    outside = ~actor_mask(actor, performance, margin_px=3.0)
    torch.testing.assert_close(frames[outside], render_ground(actor, performance.pan)[outside])
    assert 0.5 < outside.float().mean() < 0.95


def test_hands_and_feet_show_their_own_colour_where_their_joints_are():
    actor, performance = sample_actor(7), act_out("jumping_jacks")
    frames, joints = render_actor(actor, performance), joints_px(actor, performance)
    for name, colour in MARKERS.items():
        x, y = joints[10, JOINTS.index(name), :2].int().tolist()
        np.testing.assert_allclose(frames[10, y, x], colour, atol=0.12)


def test_what_is_nearer_hides_what_is_behind():
    actor, performance = sample_actor(0), act_out("jumping_jacks")
    joints = joints_px(actor, performance)[:1]
    hand, chest = JOINTS.index("left_wrist"), JOINTS.index("right_hip")
    numbers = [part[0] for part in PARTS]
    shown = []
    for depth in (-40.0, 40.0):
        moved = joints.clone()
        moved[0, hand] = moved[0, chest] + torch.tensor([0.0, -6.0, depth])
        shown.append(float(cover_of_parts(moved)[0, numbers.index("left_wrist", 10)].sum()))
    assert shown[0] < 0.2 * shown[1]


def test_parts_never_cover_a_pixel_more_than_once():
    covered = cover_of_parts(joints_px(sample_actor(3), act_out("bow"))).sum(1)
    assert covered.max() <= 1 + 1e-5 and covered.min() >= 0
    assert len(colours_of(sample_actor(3))) == len(PARTS)


def test_the_background_moves_against_the_camera():
    actor = sample_actor(4)
    still, moved = render_ground(actor, torch.tensor([0.0, 5.0]))
    torch.testing.assert_close(still[:, 5:], moved[:, :-5], atol=1e-5, rtol=0)


def test_drawn_poses_lie_on_the_person():
    actor, performance = sample_actor(6), act_out("wave")
    drawn = draw_actor_poses(actor, performance).amax(-1) > 0.2
    assert drawn.any((1, 2)).all()
    assert (drawn & actor_mask(actor, performance)).sum() > 0.97 * drawn.sum()
