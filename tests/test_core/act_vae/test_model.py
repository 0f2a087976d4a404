"""The pose predictor's numbers are those of its authors' code, in any size that was recorded."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from flexiact_core.act_vae.loading import LATENTS, POSES, make_model
from flexiact_core.act_vae.model import PENN_ACTIONS, POSE_WIDTH, draw_noise, roll_out, steps_of
from flexiact_core.errors import SettingError, ShapeError


def predictor_of(golden):
    return make_model({POSES: golden.state("image_enc_content"), LATENTS: golden.state("image_enc_vae")}).predictor


def recorded_inputs(golden):
    given = golden.inputs()
    noise = given["z"] if given["z"].ndim == 3 else given["z"][0]
    return given["pose_source"].flatten(1), given["label"].flatten().long(), noise


def test_poses_means_and_variances_are_the_recorded_ones(golden_poses):
    predictor, recorded = predictor_of(golden_poses), golden_poses.outputs()
    assert (predictor.latent, predictor.num_actions) == (golden_poses.about["z_dim"], golden_poses.about["n_label"])
    made = roll_out(predictor, *recorded_inputs(golden_poses))
    assert_close(made.poses, recorded["poses"], atol=1e-6, rtol=0)
    # Recorded step after step on the batch's axis.
    assert_close(made.mean.transpose(0, 1).flatten(0, 1), recorded["mu"], atol=1e-6, rtol=0)
    assert_close(made.log_variance.transpose(0, 1).flatten(0, 1), recorded["logvar"], atol=1e-6, rtol=0)


def test_the_states_of_every_step_are_the_recorded_ones(golden_poses):
    recorded = golden_poses.outputs()
    for number, step in enumerate(steps_of(predictor_of(golden_poses), *recorded_inputs(golden_poses))):
        found = {
            "z": step.latent[None],
            "h_vae": step.latent_state[0],
            "c_vae": step.latent_state[1],
            "h_dec": step.pose_state[0],
            "c_dec": step.pose_state[1],
        }
        for name, value in found.items():
            assert_close(value, recorded[f"step{number}.{name}"], atol=5e-6, rtol=0)


def test_the_first_step_is_that_of_an_lstm_written_out(golden_poses):
    """The gates by hand: input, forget, cell, output, as torch orders them."""
    predictor = predictor_of(golden_poses)
    pose, action, noise = recorded_inputs(golden_poses)
    label = torch.eye(predictor.num_actions)[action]

    def lstm(weights, x):
        gates = x @ weights.weight_ih_l0.T + weights.bias_ih_l0 + weights.bias_hh_l0
        write, _, cell, read = gates.chunk(4, dim=-1)
        return read.sigmoid() * (write.sigmoid() * cell.tanh()).tanh()

    mean, log_variance = lstm(predictor.latent_lstm, torch.cat([pose, label, noise[0]], -1)).chunk(2, -1)
    latent = mean + (log_variance / 2).exp() * noise[1]
    expected = lstm(predictor.pose_lstm, torch.cat([pose, label, latent], -1))
    assert_close(roll_out(predictor, pose, action, noise).poses[:, 0], expected, atol=1e-6, rtol=0)


def test_a_batch_is_its_clips_one_by_one(golden_poses):
    predictor = predictor_of(golden_poses)
    pose, action, noise = recorded_inputs(golden_poses)
    together = roll_out(predictor, pose, action, noise).poses
    for clip in range(len(pose)):
        alone = roll_out(predictor, pose[clip : clip + 1], action[clip : clip + 1], noise[:, clip : clip + 1]).poses
        assert_close(together[clip], alone[0], atol=2e-6, rtol=0)


def test_more_steps_than_four_go_on_from_the_same_beginning(golden_poses):
    predictor = predictor_of(golden_poses)
    pose, action, noise = recorded_inputs(golden_poses)
    more = roll_out(predictor, pose, action, torch.cat([noise, noise[1:]])).poses
    assert more.shape[1] == 2 * (len(noise) - 1)
    assert_close(more[:, : len(noise) - 1], roll_out(predictor, pose, action, noise).poses)


def test_noise_of_a_clip_does_not_depend_on_the_number_of_clips():
    three, one = (draw_noise(number, 4, 6, torch.Generator().manual_seed(5)) for number in (3, 1))
    assert three.shape == (5, 3, 6)
    assert_close(three[:, :1], one)


@pytest.mark.parametrize(
    ("pose", "action", "noise", "error", "words"),
    [
        (torch.zeros(2, 24), torch.zeros(2), torch.zeros(5, 2, 16), ShapeError, "24"),
        (torch.zeros(2, POSE_WIDTH), torch.zeros(3), torch.zeros(5, 2, 16), ShapeError, "one for each of 2"),
        (torch.zeros(2, POSE_WIDTH), torch.zeros(2), torch.zeros(5, 1, 16), ShapeError, "steps"),
        (torch.zeros(2, POSE_WIDTH), torch.tensor([0, 99]), torch.zeros(5, 2, 16), SettingError, "99"),
    ],
)
def test_what_does_not_fit_is_said(pose, action, noise, error, words):
    from flexiact_core.act_vae.model import ActionPoses

    with pytest.raises(error, match=words):
        roll_out(ActionPoses(len(PENN_ACTIONS), 16), pose, action, noise)
