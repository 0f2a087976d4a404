"""Procedural figures: bodies that stay whole, and actions that begin in one stance."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from flexiact_core.act_vae.figures import ACTIONS, JOINTS, draw_figures, standing_figure
from flexiact_core.act_vae.source import NAMES, PARENTS


def drawn(count: int = 300, frames: int = 10, **settings):
    return draw_figures(count, frames, torch.Generator().manual_seed(0), **settings)


def test_joints_are_in_penn_actions_order():
    assert tuple(name.replace("head", "nose") for name in JOINTS) == NAMES


def test_one_seed_gives_the_same_figures():
    first, second = drawn(20), drawn(20)
    assert torch.equal(first.poses, second.poses) and torch.equal(first.action, second.action)
    assert first.poses.shape == (20, 10, 26) and first.poses.abs().max() <= 1


def test_a_start_from_the_stance_says_nothing_of_the_action():
    """Of each action the mean first pose, over many bodies and views, is that of every other one."""
    clips = drawn(6000, 1, neutral=1.0)
    assert clips.neutral.all()
    means = torch.stack([clips.poses[clips.action == number, 0].mean(0) for number in range(len(ACTIONS))])
    # Three standard errors of a mean over some 660 clips; the poses of one action differ by 0.1 among themselves.
    assert (means - means.mean(0)).abs().max() < 0.03


def test_shares_of_starts_are_those_asked_for():
    clips = drawn(2000, 1, neutral=0.5, crossed=0.25)
    assert abs(float(clips.neutral.float().mean()) - 0.5) < 0.04
    assert abs(float(clips.crossed.float().mean()) - 0.25) < 0.04
    assert not (clips.neutral & clips.crossed).any()


def test_a_limb_seen_from_the_side_is_never_longer_than_it_is():
    """In a flat picture a limb may be short, but its greatest length over a clip and all clips has a bound."""
    clips = drawn(500)
    joints = clips.poses.unflatten(-1, (13, 2))
    height = joints[..., 1].amax(-1) - joints[..., 1].amin(-1)
    tallest = height.amax(1)[:, None]
    for joint, parent in PARENTS.items():
        length = (joints[:, :, joint] - joints[:, :, parent]).norm(dim=-1)
        assert (length <= 0.45 * tallest).float().mean() > 0.98


def test_every_action_leaves_the_stance_in_its_own_way():
    clips = drawn(1500, 9, neutral=1.0)
    moved = (clips.poses - clips.poses[:, :1]).abs().amax((1, 2))
    for number, name in enumerate(ACTIONS):
        assert moved[clips.action == number].median() > 0.1, name


def test_the_standing_figure_is_one_high_and_the_same_on_both_sides():
    figure = standing_figure()
    low, high = figure.amin(0), figure.amax(0)
    assert_close(high[1] - low[1], torch.tensor(1.0))
    middle = (low[0] + high[0]) / 2
    left, right = figure[1::2], figure[2::2]
    assert_close(left[:, 0] - middle, middle - right[:, 0], atol=1e-5, rtol=0)
