"""Learning poses: over the one loop, as the authors' two optimisers do it, and whole after any stop."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch.testing import assert_close

from flexiact_core.act_vae.build import draw_lessons
from flexiact_core.act_vae.fit import (
    RELEASED_RECIPE,
    fit_action_poses,
    measure_predictor,
    predictor_of,
    start_predictor,
)
from flexiact_core.act_vae.losses import pose_loss
from flexiact_core.errors import FileError, SettingError
from flexiact_core.training import Course, StopTraining, load_state, save_state

SETTINGS = {
    "num_actions": 9, "latent": 8, "steps": 6, "learning_rate": 2e-3, "batch_size": 4, "seed": 1,
    "device": torch.device("cpu"),
}  # fmt: skip


def learn(**changes):
    settings = SETTINGS | changes
    names = {field.name for field in fields(Course)}
    course = Course(**{name: settings.pop(name) for name in names & settings.keys()})
    return fit_action_poses(draw_lessons, course, **settings)


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
def test_steps_are_those_of_two_of_torchs_adams_with_the_rate_halved():
    """The authors' loop written out: two optimisers, each with a StepLR that is stepped before its update."""
    generator = torch.Generator().manual_seed(1)
    model = start_predictor(9, 8, generator)
    settings = {"lr": 2e-4, "betas": (0.5, 0.999), "weight_decay": 1e-4}
    optimizers = [torch.optim.Adam(net.parameters(), **settings) for net in (model.pose_lstm, model.latent_lstm)]
    schedules = [torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5) for optimizer in optimizers]
    losses = []
    for _ in range(7):
        poses, action = draw_lessons(4, generator)
        noise = torch.randn(3, poses.shape[1] - 1, 4, 8, generator=generator)
        for each in optimizers:
            each.zero_grad()
        loss = pose_loss(model, poses[:, 0], poses[:, 1:], action, noise).total
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules):
            schedule.step()
            optimizer.step()
        losses.append(loss.item())
    state = learn(steps=7, learning_rate=2e-4, recipe=replace(RELEASED_RECIPE, halve_every=3))
    assert_close(state.losses, torch.tensor(losses, dtype=torch.float64), rtol=1e-6, atol=0)
    for key, value in model.named_parameters():
        assert_close(state.parameters[key], value.detach(), rtol=1e-5, atol=1e-7)


def test_a_training_that_is_resumed_ends_bit_for_bit_as_if_it_had_not_stopped(tmp_path):
    whole = learn()

    def stop(step, loss, take_state):
        if step == 2:
            raise StopTraining

    path = save_state(learn(on_step=stop), tmp_path / "state.safetensors", {})
    stopped, _ = load_state(path)
    assert stopped.steps_done == 3
    resumed = learn(resume=stopped)
    assert torch.equal(resumed.losses, whole.losses)
    assert all(torch.equal(resumed.parameters[key], value) for key, value in whole.parameters.items())
    assert all(torch.equal(resumed.moments[key], value) for key, value in whole.moments.items())


def test_a_checkpoint_of_another_size_is_refused():
    with pytest.raises(FileError, match="of another base or size"):
        learn(latent=16, resume=learn(steps=1))


def test_a_model_is_gone_on_from_and_left_as_it_was():
    first = predictor_of(learn(steps=2))
    before = {key: value.clone() for key, value in first.state_dict().items()}
    tiny = predictor_of(learn(steps=1, learning_rate=1e-9, start_from=first))
    for key, value in tiny.state_dict().items():
        assert_close(value, before[key], atol=1e-6, rtol=0)
        assert torch.equal(first.state_dict()[key], before[key])
    with pytest.raises(SettingError, match="a model of 9 actions and a latent of 8; 9 and 16 are asked for"):
        learn(latent=16, start_from=first)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_actions": 1}, "1 action.s.; 2 or more"),
        ({"steps": 0}, "steps 0"),
        ({"learning_rate": float("nan")}, "The method uses 0.0002"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"kl_weight": -1.0}, "kl -1.0"),
        ({"learning_rate": 1e30}, "no longer a number"),
    ],
)
def test_settings_out_of_range_are_said(changes, words):
    with pytest.raises(SettingError, match=words):
        learn(**changes)


def test_learning_lowers_the_error_below_standing_still():
    from flexiact_core.act_vae.measure import held_out_figures

    figures = held_out_figures(64, 8)
    before, still = measure_predictor(start_predictor(9, 16, torch.Generator()), figures.poses, figures.action)
    state = learn(steps=150, latent=16, batch_size=16, learning_rate=5e-3)
    after, _ = measure_predictor(predictor_of(state), figures.poses, figures.action)
    assert after < before / 2 and still < 10


def test_two_predictors_of_one_seed_begin_alike():
    first, second = (start_predictor(9, 8, torch.Generator().manual_seed(4)) for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters()):
        assert torch.equal(one, other)
    assert first.latent_lstm.weight_hh_l0.abs().max() <= 0.25
