"""Poses learned from the command line, in one process and in two; and what Ctrl-C keeps."""

from __future__ import annotations

import re

import pytest
import torch
from launches import assert_same_first_moments, checkpoint_of, interrupt, launch

from flexiact_core.act_vae.figures import ACTIONS
from flexiact_core.act_vae.loading import load_act_vae
from flexiact_core.act_vae.train_poses import parse_arguments, train
from flexiact_core.training import load_state

MODULE = "flexiact_core.act_vae.train_poses"
pytestmark = pytest.mark.usefixtures("alone_on_cpu")


def settings(output, steps, *options):
    return list(map(str, ["--output", output, "--latent", 16, "--steps", steps, *options]))


def learn(*given):
    return load_act_vae(train(parse_arguments(settings(*given))))


def test_two_processes_learn_what_one_learns_from_twice_the_batch(tmp_path, capsys):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    learn(one, 2, "--batch-size", 8, "--measure-every", 1)
    said = capsys.readouterr().out
    assert re.search(r"step 1, held out: error [\d.]+ px of 128, standing still [\d.]+\nstep 1/2", said)
    shared = launch(MODULE, settings(two, 2, "--batch-size", 4), tmp_path, processes=2)
    # The mean of both losses is the loss of the whole batch.
    assert re.findall("step ./2 loss .+", shared) == re.findall("step ./2 loss .+", said)
    assert_same_first_moments(checkpoint_of(one), checkpoint_of(two))
    assert load_act_vae(two).actions == tuple(ACTIONS)


def test_ctrl_c_ends_two_processes_after_the_same_step_and_one_goes_on_from_it(tmp_path, capsys):
    output, whole = tmp_path / "poses.safetensors", tmp_path / "whole.safetensors"
    said = interrupt(MODULE, settings(output, 100_000, "--batch-size", 2), tmp_path, "step 3/", processes=2)
    last = int(re.findall(r"step (\d+)/100000", said)[-1])
    assert last >= 3 and f"stopped after step {last} of 100000" in said
    assert load_state(checkpoint_of(output))[0].steps_done == last
    assert load_act_vae(output).actions == tuple(ACTIONS)
    for path in (output, whole):
        learn(path, last + 1, "--batch-size", 4)
    assert f"resuming at step {last}" in capsys.readouterr().out
    assert_same_first_moments(checkpoint_of(output), checkpoint_of(whole))


def test_a_model_is_gone_on_from(tmp_path):
    first = learn(tmp_path / "first.safetensors", 1).predictor.state_dict()
    options = ["--start-from", tmp_path / "first.safetensors", "--learning-rate", 1e-12]
    second = learn(tmp_path / "second.safetensors", 1, *options).predictor.state_dict()
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, atol=1e-6, rtol=0)
