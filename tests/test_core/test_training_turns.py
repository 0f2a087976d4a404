"""A training that takes several kinds of step in turns: each moves its own parameters, with its own optimizer."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from flexiact_core.training import Course, Recipe, StopTraining, Turn, descend

RECIPE = Recipe(weight_decay=0.1, gradient_clip=None, decoupled=False, halve_every=2)


def learn(steps: int, resume=None, on_step=None):
    generator = torch.Generator().manual_seed(0)
    parameters = {name: torch.nn.Parameter(torch.ones(3)) for name in ("a", "b")}
    counter = torch.zeros(())

    def loss_of(factor: float):
        def compute() -> torch.Tensor:
            counter.add_(1)
            # Reaches both, whoever's turn it is.
            noise = torch.rand(3, generator=generator)
            return (factor * noise * parameters["a"] * parameters["b"]).square().sum()

        return compute

    turns = [Turn(loss_of(1.0), ("a",)), Turn(loss_of(2.0), ("b",)), Turn(loss_of(3.0), ("b",))]
    course = Course(steps, 0.1, 0, torch.device("cpu"), resume=resume, on_step=on_step)
    return descend(parameters, turns, generator, course, recipe=RECIPE, buffers={"counter": counter})


def test_a_turn_moves_its_own_parameters_alone():
    one, two = learn(1).parameters, learn(2).parameters
    assert (one["a"] != 1).all() and (one["b"] == 1).all()
    assert torch.equal(two["a"], one["a"]) and (two["b"] != 1).all()


def test_the_steps_are_those_of_an_adam_for_each_written_out():
    a, b = (torch.ones(3, requires_grad=True) for _ in range(2))
    adams = [torch.optim.Adam([part], lr=0.1, betas=RECIPE.betas, weight_decay=0.1) for part in (a, b)]
    generator = torch.Generator().manual_seed(0)
    for step in range(7):
        mine = adams[0 if step % 3 == 0 else 1]
        # Three turns are a round; the rate is half as high from the second round on, a quarter from the fourth.
        mine.param_groups[0]["lr"] = 0.1 * 0.5 ** ((step // 3 + 1) // 2)
        a.grad = b.grad = None
        ((1.0, 2.0, 3.0)[step % 3] * torch.rand(3, generator=generator) * a * b).square().sum().backward()
        mine.step()
    found = learn(7)
    assert_close(found.parameters["a"], a.detach())
    assert_close(found.parameters["b"], b.detach())
    assert found.buffers["counter"] == 7


def test_a_stop_between_turns_is_gone_on_from_bit_for_bit():
    def stop(step, loss, take_state):
        if step == 3:
            raise StopTraining

    whole, stopped = learn(8), learn(8, on_step=stop)
    resumed = learn(8, resume=stopped)
    assert stopped.steps_done == 4
    for part in ("parameters", "moments", "buffers"):
        for key, value in getattr(whole, part).items():
            assert torch.equal(getattr(resumed, part)[key], value), (part, key)
