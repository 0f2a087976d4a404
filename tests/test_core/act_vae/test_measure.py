"""The shipped weights do what their words say, and the measures say how well, beside their controls."""

from __future__ import annotations

import pytest
import torch

from flexiact_core.act_vae.build import SHIPPED
from flexiact_core.act_vae.figures import ACTIONS
from flexiact_core.act_vae.loading import load_act_vae, make_model
from flexiact_core.act_vae.measure import held_out_figures, measure_poses, seen_actions
from flexiact_core.act_vae.report import measure_clips, take_clips, take_variants
from flexiact_core.errors import SettingError, ShapeError
from flexiact_core.poses.sequence import PoseSequence
from flexiact_core.poses.skeletons import PENN13

UNSEEN = 24


@pytest.fixture(scope="module")
def shipped():
    return load_act_vae(SHIPPED)


@pytest.fixture(scope="module")
def small(small_parts):
    return make_model(small_parts, name="small")


def measured(model, neutral: float):
    clips = held_out_figures(UNSEEN * len(ACTIONS), model.steps, neutral)
    return measure_poses(model, clips.poses, clips.action)


def test_the_shipped_weights_are_small_and_know_the_figures_actions(shipped):
    assert SHIPPED.stat().st_size < 1_000_000
    assert shipped.actions == tuple(ACTIONS) and shipped.judge is not None and shipped.generator is None


def test_on_unseen_figures_the_action_is_seen_where_standing_still_does_not_show_it(shipped):
    found = measured(shipped, neutral=0.5)
    assert found.true_accuracy >= 0.99
    assert found.accuracy >= 0.90 and found.still_accuracy <= 0.55
    assert found.best < found.error < found.still_error < found.swapped_error


def test_from_the_stance_the_word_decides(shipped):
    found = measured(shipped, neutral=1.0)
    assert found.accuracy >= 0.90 and found.still_accuracy <= 0.2


def test_another_actions_name_is_followed_also_from_the_middle_of_an_action(shipped):
    assert measured(shipped, neutral=0.5).swapped_accuracy >= 0.85
    assert measured(shipped, neutral=0.0).swapped_accuracy >= 0.85


def test_the_predictions_lie_nearer_to_the_true_clips_than_standing_still(shipped):
    found = measured(shipped, neutral=0.5)
    assert found.halves_frechet < found.frechet < found.still_frechet / 4


def test_few_clips_have_no_distribution(shipped):
    clips = held_out_figures(8, shipped.steps)
    found = measure_poses(shipped, clips.poses, clips.action)
    assert found.frechet is None and "32 clips or more" in found.lines()[-1]


def test_a_model_without_a_judge_is_asked_for_its_own_poses(small):
    """Its own mean course of an action is nearest to that action."""
    from flexiact_core.act_vae.model import roll_out

    source = torch.rand(9, 26, generator=torch.Generator().manual_seed(0)) - 0.5
    action = torch.arange(9)
    own = roll_out(small.predictor, source, action, torch.zeros(5, 9, small.predictor.latent)).poses
    assert seen_actions(small, source, own).tolist() == action.tolist()


def sequence(frames: int, shift: float = 0.0) -> PoseSequence:
    from act_vae_data import figures_px

    points, _ = figures_px(1, frames)
    return PoseSequence(points[0][:, None] + shift, torch.ones(frames, 1, 13), (200, 200), 8.0, PENN13)


def test_true_poses_are_cut_into_every_clip_of_the_models_length(small):
    clips = take_clips(small, [sequence(7), sequence(5)], "squat")
    assert clips.poses.shape == (3 + 1, 5, 26) and clips.action.tolist() == [7] * 4
    with pytest.raises(ShapeError, match="truth: 4 frames; 5 or more"):
        take_clips(small, [sequence(4)], "squat")
    with pytest.raises(SettingError, match="actions of its own. Connect true poses"):
        take_clips(small, [], "squat")


def test_poses_are_measured_against_the_truth_in_its_box(small):
    truth = sequence(5)
    clips = take_clips(small, [truth], "squat")
    exact, off = take_variants(clips, [truth, sequence(5, 3.0)])
    box = clips.box
    scale = 128 / float((box[2:] - box[:2]).max())
    report = measure_clips(small, clips, torch.stack([exact, off]))
    # One variant is the truth, the other 3 px to the right and down of it.
    assert report.best == pytest.approx(0, abs=1e-4)
    assert report.error == pytest.approx(3 * 2**0.5 * scale / 2, rel=0.02)
    assert "given poses, 2 variant(s)" in report.text and "standing still" in report.text
    assert report.picture.shape[0] == 1 and report.picture.shape[-1] == 3
    with pytest.raises(ShapeError, match="variant 1: 4 frames"):
        take_variants(clips, [sequence(4)])


def test_without_truth_the_figures_that_no_training_saw_are_taken(shipped, monkeypatch):
    monkeypatch.setattr("flexiact_core.act_vae.report.HELD_OUT_CLIPS", 40)
    clips = take_clips(shipped, [], "walk")
    assert len(clips.poses) == 40
    report = measure_clips(shipped, clips)
    assert "40 clips, 10 draws" in report.text and "Frechet distance" in report.text
    with pytest.raises(ShapeError, match="Connect 'truth'"):
        take_variants(clips, [sequence(9)])
