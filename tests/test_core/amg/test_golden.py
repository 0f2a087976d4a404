"""The network, its steps and its loss against numbers that the release's own code gave."""

import inspect

import pytest
import torch
from diffusers import UNet3DConditionModel
from torch.testing import assert_close

from flexiact_core.amg.keys import diffusers_names, diffusers_shape
from flexiact_core.amg.model import describe_unet, empty_unet, inject_lora, lora_shapes
from flexiact_core.amg.sampling import make_scheduler, predict_noise, sample_avatar_video

FORWARD = {"atol": 3e-5, "rtol": 0}


@pytest.fixture(scope="module", params=["merged", "injected"])
def unet(request, amg_golden):
    return (
        amg_golden.merged if request.param == "merged" else inject_lora(amg_golden.parts[0], amg_golden.parts[1].lora)
    )


def forward(unet, io, text, timestep=951):
    model_input = torch.cat([io["in.noise"], io["in.avatar"]], dim=1)
    times = torch.full((len(model_input),), timestep)
    with torch.no_grad():
        return unet(model_input, times, encoder_hidden_states=io[text]).sample


def test_rules_name_every_key_of_the_small_network(amg_golden):
    expected = amg_golden.json("tiny_key_map")
    expected = expected["base"] | expected["lora"]
    assert diffusers_names(expected) == expected


def test_the_released_file_is_a_plain_unet_of_diffusers_and_its_lora(amg_golden):
    released = amg_golden.json("release_keys")
    names = diffusers_names(released)
    assert names == {name: entry["diffusers"] for name, entry in released.items()}
    shapes = {names[name]: diffusers_shape(names[name], entry["shape"]) for name, entry in released.items()}
    config = describe_unet({key: shape for key, shape in shapes.items() if ".lora_" not in key})
    defaults = {name: item.default for name, item in inspect.signature(UNet3DConditionModel).parameters.items()}
    assert config == {key: defaults[key] for key in config} | {"in_channels": 8}
    unet = empty_unet(config)
    assert shapes == {key: tuple(value.shape) for key, value in unet.state_dict().items()} | lora_shapes(unet, rank=4)
    assert len(shapes) == 2008


@pytest.mark.parametrize(("text", "out"), [("in.y", "out.eps_cond_t951"), ("in.zero_y", "out.eps_uncond_t951")])
def test_a_forward_is_the_releases(unet, amg_golden, text, out):
    assert_close(forward(unet, amg_golden.io, text), amg_golden.io[out], **FORWARD)


@pytest.mark.parametrize("batched", [True, False])
def test_guided_steps_are_the_releases(amg_golden, batched):
    io, scheduler = amg_golden.io, make_scheduler()
    scheduler.set_timesteps(amg_golden.settings["ddim_timesteps"])
    timesteps = [int(key.split("_t")[1].split(".")[0]) for key in io if key.endswith(".xprev")]
    assert len(timesteps) >= 3
    for timestep in timesteps:
        predicted = predict_noise(
            amg_golden.merged, io["in.noise"], io["in.avatar"], timestep, io["in.y"], io["in.zero_y"],
            cfg=amg_golden.settings["guide_scale"], batched=batched,
        )  # fmt: skip
        latents, clean = scheduler.step(predicted.detach(), timestep, io["in.noise"], return_dict=False)
        assert_close(latents, io[f"out.ddim_t{timestep}.xprev"], **FORWARD)
        expected = io[f"out.ddim_t{timestep}.x0"]
        assert_close(clean, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


def test_all_guided_steps_end_where_the_release_ends(amg_golden):
    io, settings = amg_golden.io, amg_golden.settings
    latents = sample_avatar_video(
        amg_golden.merged, io["in.noise"], io["in.avatar"], io["in.y"], io["in.zero_y"],
        steps=settings["ddim_timesteps"], cfg=settings["guide_scale"],
    )  # fmt: skip
    expected = io[f"out.loop{settings['ddim_timesteps']}"]
    # A thousandth on numbers up to 51.
    assert_close(latents, expected, atol=2e-5 * float(expected.abs().max()), rtol=0)


def test_the_schedule_is_the_releases(amg_golden):
    expected = amg_golden.io["out.alphas_cumprod"].float()
    assert_close(make_scheduler().alphas_cumprod, expected, atol=1e-6, rtol=0)
