"""Trainings shared among processes, as the command lines do it: each computes its part, and all learn the same."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from flexiact_core.act_vae.fit import fit_action_poses
from flexiact_core.cogvideox.encodings import Clips
from flexiact_core.cogvideox.model import Posterior
from flexiact_core.cogvideox.sampling import make_scheduler
from flexiact_core.flexiact.fit import fit_fae

CPU = torch.device("cpu")


def draw_clips(count, generator):
    return torch.rand(count, 6, 26, generator=generator) * 2 - 1, torch.randint(3, (count,), generator=generator)


def fit_poses(**settings):
    return fit_action_poses(
        draw_clips, num_actions=3, latent=16, steps=1, learning_rate=1e-3, seed=0, device=CPU, **settings
    )


@pytest.fixture(scope="module")
def fit_action(small_base):
    from flexiact_core.cogvideox.loading import load_base

    base = load_base(small_base, small_base, torch.float32)
    generator = torch.Generator().manual_seed(0)
    config = base.transformer.config
    latents = config.out_channels, config.sample_height, config.sample_width

    def posterior(frames):
        shape = 3, frames, *latents
        return Posterior(torch.randn(shape, generator=generator), torch.ones(shape))

    embeds = torch.randn(1, config.max_text_seq_length, config.text_embed_dim, generator=generator)
    clips = Clips(posterior(3), posterior(1), embeds, embeds * 0, 0.7)
    scheduler = make_scheduler(base.scheduler_config, "DPM")

    def fit(**settings):
        return fit_fae(
            base.transformer, scheduler, clips, steps=1, learning_rate=1e-3, seed=0, device=CPU, num_tokens=4,
            **settings,
        )

    return fit


@pytest.mark.parametrize("what", ["poses", "action"])
def test_the_mean_of_two_processes_gradients_is_the_gradient_of_the_whole_batch(what, request):
    fit = fit_poses if what == "poses" else request.getfixturevalue("fit_action")
    found = {}

    def noting(name):
        return lambda parameters: found.setdefault(name, [parameter.grad.clone() for parameter in parameters])

    fit(batch_size=4, share=noting("whole"))
    for number in range(2):
        fit(batch_size=2, share=noting(number), shard=(number, 2))
    for whole, first, second in zip(found["whole"], found[0], found[1], strict=True):
        assert_close((first + second) / 2, whole, rtol=1e-4, atol=1e-6)


def test_what_is_shared_is_what_is_learned_with():
    plain = fit_poses(batch_size=4)

    def nothing(parameters):
        for parameter in parameters:
            parameter.grad.zero_()

    still = fit_poses(batch_size=4, share=nothing)
    key = next(iter(plain.parameters))
    assert not torch.equal(plain.parameters[key], still.parameters[key])
    assert still.moments[f"exp_avg/{key}"].abs().max() < 1e-3 * plain.moments[f"exp_avg/{key}"].abs().max()
