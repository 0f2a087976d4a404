"""One loop for all that learns: it resumes bit for bit, stops within a step, and keeps what was learned."""

import math

import pytest
import torch
from small_models import make_fae
from trainings import fit, fit_adapter, same_state

from flexiact_core import weight_files
from flexiact_core.errors import FileError
from flexiact_core.flexiact.fit import (
    TOKENS,
)
from flexiact_core.training import Checkpoint, Course, StopTraining, descend, follow, load_state, save_state
from flexiact_core.weight_files import write_tensors

CPU = torch.device("cpu")


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [0, 2])
def test_an_on_step_that_raises_stops_within_its_step(base, scheduler, clips, at):
    steps = []

    def stop(step, loss, take_state):
        steps.append(step)
        if step == at:
            raise Stop

    with pytest.raises(Stop):
        fit(base, scheduler, clips, on_step=stop)
    assert steps == list(range(at + 1))
    fit(base, scheduler, clips, steps=1)


def test_stop_training_keeps_what_was_learned_so_far(base, scheduler, clips):
    def stop(step, loss, take_state):
        if step == 1:
            raise StopTraining

    stopped = fit(base, scheduler, clips, on_step=stop)
    assert stopped.steps_done == 2
    assert torch.equal(stopped.parameters[TOKENS], fit(base, scheduler, clips, steps=2).parameters[TOKENS])


def test_on_step_hears_every_loss(base, scheduler, clips):
    heard = []
    state = fit(base, scheduler, clips, on_step=lambda step, loss, take_state: heard.append((step, loss)))
    assert heard == list(enumerate(state.losses.tolist()))
    assert all(math.isfinite(loss) for _, loss in heard)


def test_a_resumed_training_equals_one_that_never_stopped_bit_for_bit(base, scheduler, clips, tmp_path):
    whole = fit(base, scheduler, clips, steps=6)
    half = fit(base, scheduler, clips, steps=3)
    loaded, metadata = load_state(save_state(half, tmp_path / "half.safetensors", {"caption": "a kick"}))
    assert metadata == {"caption": "a kick"} and loaded.steps_done == 3
    assert same_state(loaded, half)
    # The seed of a resumed run is that of the run it goes on with.
    assert same_state(fit(base, scheduler, clips, steps=6, seed=123, resume=loaded), whole)


def test_a_state_taken_while_training_is_not_changed_by_later_steps(base, scheduler, clips):
    taken = []

    def keep(step, loss, take_state):
        if step == 1:
            taken.append(take_state())

    fit(base, scheduler, clips, on_step=keep)
    assert same_state(taken[0], fit(base, scheduler, clips, steps=2))


def test_a_training_that_is_already_done_is_returned_as_it_is(base, scheduler, clips):
    state = fit(base, scheduler, clips, steps=3)
    assert same_state(fit(base, scheduler, clips, steps=3, resume=state), state)


def test_a_checkpoint_of_another_size_is_refused(base, scheduler, clips):
    state = fit(base, scheduler, clips, steps=1)
    with pytest.raises(FileError, match=r"resume: .*tokens: \[2, 7, 32\] expected, \[2, 5, 32\] found.*Start anew"):
        fit(base, scheduler, clips, num_tokens=7, resume=state)


def test_a_checkpoint_of_the_other_training_is_refused(base, scheduler, clips):
    with pytest.raises(FileError, match="resume: .*nothing found"):
        fit(base, scheduler, clips, resume=fit_adapter(base, scheduler, clips, steps=1))


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = make_fae(tmp_path / "kick.safetensors")
    with pytest.raises(FileError, match="kick.safetensors: this is no checkpoint of a training"):
        load_state(path)
    partial = write_tensors({"learned/tokens": torch.ones(1), "losses": torch.ones(1)}, tmp_path / "p.safetensors", {})
    with pytest.raises(FileError, match="p.safetensors: this is no checkpoint of a training"):
        load_state(partial)


def test_a_full_disk_leaves_the_old_checkpoint(base, scheduler, clips, tmp_path, monkeypatch):
    first, second = (fit(base, scheduler, clips, steps=steps) for steps in (1, 2))
    path = save_state(first, tmp_path / "c.safetensors", {})

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_files.os, "replace", no_space)
    with pytest.raises(FileError, match="c.safetensors: could not be saved.*No space left"):
        save_state(second, path, {})
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]
    assert same_state(load_state(path)[0], first)


def line(generator, parameters):
    """A loss that draws: how far a line is from 3x at a random place."""
    return lambda: (parameters["slope"] * torch.rand((), generator=generator) - 3).square()


def learn_line(steps, **options):
    generator = torch.Generator().manual_seed(0)
    parameters = {"slope": torch.nn.Parameter(torch.zeros(()))}
    course = Course(**{"steps": steps, "learning_rate": 0.1, "seed": 0, "device": torch.device("cpu")} | options)
    return descend(parameters, line(generator, parameters), generator, course)


def test_a_checkpoint_is_written_when_it_is_due_and_says_how_far_it_came(tmp_path):
    checkpoint = Checkpoint(tmp_path / "line.safetensors", 3, {"name": "line"})
    assert checkpoint.load() is None
    whole = learn_line(7, on_step=checkpoint.on_step)
    assert checkpoint.load().steps_done == 6
    assert load_state(checkpoint.path)[1] == {"name": "line", "steps_done": "6"}
    assert same_state(learn_line(7, resume=checkpoint.load()), whole)


def test_several_follow_a_training_in_their_order():
    heard = []
    learn_line(
        2, on_step=follow(lambda step, *_: heard.append(("a", step)), lambda step, *_: heard.append(("b", step)))
    )
    assert heard == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
