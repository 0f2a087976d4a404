"""What command-line trainings share: how they stop and go on."""

from __future__ import annotations

import signal

import pytest
import torch

from flexiact_core.command_line import Processes, training_parser
from flexiact_core.training import descend, load_state

pytestmark = pytest.mark.usefixtures("alone_on_cpu")


def learn(output, *options, listeners=()):
    parser = training_parser("", "", steps=6, learning_rate=0.1, batch="")
    settings = parser.parse_args(["--output", str(output), *options])

    def fit(course):
        generator, learned = course.generator(), torch.nn.Parameter(torch.ones(3))
        return descend(
            {"learned": learned}, lambda: (learned * torch.rand(3, generator=generator)).square().sum(), generator,
            course,
        )  # fmt: skip

    return Processes().train(settings, fit, listeners)


@pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM])
def test_who_is_asked_to_end_ends_after_the_step_and_goes_on_from_it(tmp_path, capsys, request_to_end):
    before = signal.getsignal(request_to_end)

    def ask(index, loss, take_state):
        if index == 3:
            signal.raise_signal(request_to_end)

    stopped = learn(tmp_path / "parts.safetensors", listeners=[ask])
    assert signal.getsignal(request_to_end) is before
    assert "stopped after step 4 of 6; the same command goes on from there" in capsys.readouterr().out
    kept, _ = load_state(tmp_path / "parts.checkpoint.safetensors")
    assert stopped.steps_done == kept.steps_done == 4
    whole, parts = learn(tmp_path / "whole.safetensors"), learn(tmp_path / "parts.safetensors")
    assert torch.equal(whole.parameters["learned"], parts.parameters["learned"])
    assert torch.equal(whole.losses, parts.losses)


@pytest.fixture
def pythons_own_handler():
    """Python's own handling of Ctrl-C, which a program that was started in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_ends_at_once(tmp_path, pythons_own_handler):
    def ask(index, loss, take_state):
        if index == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "x.safetensors", "--checkpoint-every", "2", listeners=[ask])
    # What it had kept by then is there, whole.
    assert load_state(tmp_path / "x.checkpoint.safetensors")[0].steps_done == 4
