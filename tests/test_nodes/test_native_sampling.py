"""CogVideoX's own steps as ComfyUI's SAMPLER and SIGMAS, and what ComfyUI's samplers make of the model set right."""

from __future__ import annotations

import pytest
import torch
from native_model import action, adapter, make_model, tensors

from flexiact_core.errors import SettingError
from flexiact_core.flexiact.bias import MotionBias


@pytest.fixture(scope="module")
def model():
    import comfy.model_management
    from flexiact_pack.nodes.native import with_lora
    from flexiact_pack.nodes.native_action import with_action

    acting = with_action(with_lora(make_model(), adapter(), 0.7), action(1.0), MotionBias(1.0, 800, 700, "release"))
    yield acting
    comfy.model_management.unload_all_models()


def run(model, sampler, sigmas, seed=42):
    """Latents (1, L, C, h, w) of the recorded inputs, and the clean latents after each step."""
    import comfy.sample

    given, seen = tensors("sampling"), []
    picture = given["image_latents"][:, :1].movedim(1, 2) / 0.7
    negative, positive = (
        [[embeds[None], {"concat_latent_image": picture}]] for embeds in given["prompt_embeds"]
    )  # fmt: skip
    noise = given["latents_init"].movedim(1, 2)
    with torch.inference_mode():
        latents = comfy.sample.sample_custom(
            model, noise, 6.0, sampler, sigmas, positive, negative, torch.zeros_like(noise),
            callback=lambda step, clean, x, total: seen.append(clean.movedim(1, 2)), disable_pbar=True, seed=seed,
        )  # fmt: skip
    return latents.movedim(1, 2) * 0.7, seen


def sigmas_of(model, steps):
    from flexiact_pack.nodes.native_sampling import trailing_sigmas

    return trailing_sigmas(model.get_model_object("model_sampling"), steps)


def own(name):
    from flexiact_pack.nodes.native_sampling import sampler_class

    return sampler_class()(name)


def test_ten_dpm_steps_are_the_recorded_ones_after_each_step(model, monkeypatch):
    from diffusers import CogVideoXDPMScheduler
    from diffusers.schedulers import scheduling_dpm_cogvideox

    recorded, after = tensors("sampling"), []
    step = CogVideoXDPMScheduler.step

    def noted(*args, **kwargs):
        result = step(*args, **kwargs)
        after.append(result[0])
        return result

    monkeypatch.setattr(CogVideoXDPMScheduler, "step", noted)
    monkeypatch.setattr(
        scheduling_dpm_cogvideox, "randn_tensor", lambda shape, **_: recorded["noise_used"][len(after)][None]
    )
    latents, seen = run(model, own("DPM"), sigmas_of(model, 10))
    for found, expected in zip(after, recorded["latents_after_step"], strict=True):
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(latents[0], recorded["latents_after_step"][-1], rtol=0, atol=1e-4)
    assert len(seen) == 10, "a preview for each step"


def test_euler_with_simple_takes_the_steps_of_ddim(model):
    import comfy.samplers

    sampling = model.get_model_object("model_sampling")
    simple = comfy.samplers.calculate_sigmas(sampling, "simple", 10)
    expected, _ = run(model, own("DDIM"), sigmas_of(model, 10))
    found, _ = run(model, comfy.samplers.sampler_object("euler"), simple)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_the_schedule_is_diffusers_trailing_one_for_every_number_of_steps(model):
    import numpy as np

    sampling = model.get_model_object("model_sampling")
    for steps in range(1, 1001):
        timesteps = sampling.timestep(sigmas_of(model, steps)[:-1])
        # For 62 numbers of steps arange gives one more, which is no step.
        spaced = np.arange(1000, 0, -1000 / steps)[:steps]
        assert timesteps.tolist() == (np.round(spaced) - 1).astype(int).tolist()


@pytest.mark.parametrize("steps", [10, 20, 25, 50])
def test_simple_is_the_same_schedule_at_these_steps(model, steps):
    import comfy.samplers

    sampling = model.get_model_object("model_sampling")
    simple = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
    torch.testing.assert_close(simple, sigmas_of(model, steps))


def test_two_stretches_of_a_run_are_the_run(model):
    whole, _ = run(model, own("DDIM"), sigmas_of(model, 4))
    sigmas, given = sigmas_of(model, 4), tensors("sampling")
    import comfy.sample

    first, _ = run(model, own("DDIM"), sigmas[:3])
    picture = given["image_latents"][:, :1].movedim(1, 2) / 0.7
    negative, positive = ([[embeds[None], {"concat_latent_image": picture}]] for embeds in given["prompt_embeds"])
    started = first.movedim(1, 2) / 0.7
    with torch.inference_mode():
        last = comfy.sample.sample_custom(
            model, torch.zeros_like(started), 6.0, own("DDIM"), sigmas[2:], positive, negative, started,
            disable_pbar=True, seed=42,
        )  # fmt: skip
    torch.testing.assert_close(last.movedim(1, 2) * 0.7, whole, rtol=0, atol=1e-4)


def test_sigmas_of_another_schedule_are_refused(model):
    import comfy.samplers

    sampling = model.get_model_object("model_sampling")
    with pytest.raises(SettingError, match="no stretch of CogVideoX's own schedule"):
        run(model, own("DPM"), comfy.samplers.calculate_sigmas(sampling, "karras", 10))


def test_noise_and_where_steps_go_on_are_those_of_our_own_sampler():
    from types import SimpleNamespace

    from flexiact_pack.nodes.native_sampling import StartNoise, _starts

    from flexiact_core.cogvideox.family import COGVIDEOX_1_0
    from flexiact_core.cogvideox.model import Posterior
    from flexiact_core.cogvideox.sampling import Run, start_latents

    base = SimpleNamespace(vae=SimpleNamespace(config=Config(scaling_factor=0.7)), family=COGVIDEOX_1_0)
    picture = Posterior(torch.zeros(2, 1, 16, 8, 6), torch.ones(2, 1, 16, 8, 6))
    noise, _, generators = start_latents(base, picture, Run(17, torch.device("cpu"), seed=(5, 6)))
    found = StartNoise(5).generate_noise({"samples": torch.zeros(2, 16, 5, 8, 6)})
    torch.testing.assert_close(found.movedim(1, 2), noise, rtol=0, atol=0)
    for (_, own), generator in zip(_starts((2, 16, 5, 8, 6), 5), generators, strict=True):
        assert torch.equal(own.get_state(), generator.get_state()), "the steps would draw the noise's numbers again"


class Config(dict):
    __getattr__ = dict.__getitem__
