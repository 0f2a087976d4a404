"""Losses and gradients are those of the authors' code."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from flexiact_core.act_vae.losses import (
    VGG_LEVELS,
    adversarial_loss,
    check_vgg,
    critic_loss,
    generator_losses,
    perceptual_error,
    pose_loss,
)
from flexiact_core.act_vae.model import roll_out
from flexiact_core.errors import FileError, ShapeError

from .test_model import predictor_of


def training_inputs(golden):
    given = golden.inputs()
    targets = [given[key].flatten(1) for key in sorted(key for key in given if key.startswith("pose_target"))]
    return given["pose_source"].flatten(1), torch.stack(targets, 1), given["label"].flatten().long(), given["z"]


def test_the_losses_are_the_recorded_ones(golden_losses):
    given, recorded = training_inputs(golden_losses), golden_losses.outputs()
    loss = pose_loss(predictor_of(golden_losses), *given)
    expected = torch.stack([recorded[f"recon{number}_x200"] for number in range(3)])
    assert_close(loss.poses, expected, rtol=1e-5, atol=0)
    assert_close(loss.latents, recorded["kl"], rtol=1e-5, atol=0)
    assert_close(loss.total, recorded["total"], rtol=1e-5, atol=0)
    # What the authors' own forward returned.
    assert_close(loss.poses.sum(), recorded["fw.recon"], rtol=1e-5, atol=0)
    assert_close(loss.latents, recorded["fw.kl"], rtol=1e-5, atol=0)


def test_the_gradients_are_the_recorded_ones(golden_losses):
    predictor, recorded = predictor_of(golden_losses).requires_grad_(), golden_losses.outputs()
    pose_loss(predictor, *training_inputs(golden_losses)).total.backward()
    for ours, theirs in (("pose_lstm", "image_enc_content"), ("latent_lstm", "image_enc_vae")):
        for name, weight in getattr(predictor, ours).named_parameters():
            assert_close(weight.grad, recorded[f"grad.{theirs}.rnn.{name}"], rtol=1e-5, atol=2e-5)


def test_one_pass_of_three_times_the_clips_is_three_passes(golden_losses):
    source, targets, action, noise = training_inputs(golden_losses)
    predictor, steps = predictor_of(golden_losses), noise.shape[1] - 1
    wanted = [targets[:, :steps], torch.cat([targets[:, : steps - 1], targets[:, steps:]], 1), targets[:, 1:]]
    apart = [
        200 * (roll_out(predictor, source, action, one).poses - true).abs().mean() for one, true in zip(noise, wanted)
    ]
    assert_close(pose_loss(predictor, source, targets, action, noise).poses, torch.stack(apart))


def test_targets_have_one_pose_more_than_there_are_steps(golden_losses):
    source, targets, action, noise = training_inputs(golden_losses)
    with pytest.raises(ShapeError, match="one target more"):
        pose_loss(predictor_of(golden_losses), source, targets[:, 1:], action, noise)


def test_the_losses_of_pictures_are_the_recorded_ones(golden_images):
    from .test_pose_to_image import critic_of

    given, recorded, critic = golden_images.inputs(), golden_images.outputs(), critic_of(golden_images)
    made, real, maps = recorded["image_out"], given["target"], recorded["maps_tgt"]
    losses = generator_losses(critic, made, real, maps, given["mask"])
    assert_close(losses["image"], recorded["loss_recon_x30"], rtol=1e-5, atol=0)
    assert_close(losses["adversarial"], recorded["loss_gen_adv_x5"], rtol=1e-5, atol=0)
    assert_close(losses["features"], recorded["loss_feature"], rtol=1e-5, atol=0)
    assert set(losses) == {"image", "adversarial", "features"}
    assert_close(adversarial_loss(critic, made, maps), recorded["loss_gen_adv_x5"], rtol=1e-5, atol=0)
    assert_close(critic_loss(critic, made, maps, real, maps), recorded["loss_dis_x5"], rtol=1e-5, atol=0)


def small_vgg() -> dict[str, torch.Tensor]:
    """VGG19's keys with two channels a layer."""
    generator = torch.Generator().manual_seed(0)
    numbers = [number for level in VGG_LEVELS for number in level]
    widths = [3] + [2] * len(numbers)
    weights = {
        f"features.{number}.weight": torch.randn(2, width, 3, 3, generator=generator)
        for number, width in zip(numbers, widths)
    }
    return weights | {f"features.{number}.bias": torch.zeros(2) for number in numbers}


def test_the_perceptual_loss_is_that_of_torchvisions_layers_in_a_row():
    """A second formulation: the whole network as torchvision numbers it, and what comes out after layers 1, 6, ..."""
    from torch.nn import Conv2d, MaxPool2d, ReLU

    vgg = small_vgg()
    layers = []
    for number in range(30):
        if f"features.{number}.weight" in vgg:
            layer = Conv2d(vgg[f"features.{number}.weight"].shape[1], 2, 3, padding=1)
            layer.load_state_dict({part: vgg[f"features.{number}.{part}"] for part in ("weight", "bias")})
            layers.append(layer)
        else:
            layers.append(MaxPool2d(2) if number in (4, 9, 18, 27) else ReLU())
    made, real = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected, weights = 0.0, {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}
    with torch.no_grad():
        for number, layer in enumerate(layers):
            made, real = layer(made), layer(real)
            expected += weights.get(number, 0.0) * (made - real).abs().mean()
    made, real = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert_close(perceptual_error(vgg, made, real), expected)


def test_a_file_that_is_no_vgg_is_refused():
    with pytest.raises(FileError, match=r"features\.0\.weight is missing"):
        check_vgg("other.pth", {"classifier.0.weight": torch.zeros(1)})
    assert len(check_vgg("vgg.pth", small_vgg() | {"classifier.0.weight": torch.zeros(1)})) == 26
