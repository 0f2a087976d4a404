"""What ACT-VAE and P2I are trained for.

Shape letters: B clips or pictures, T steps, P numbers of a pose, Z latent width, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FileError, ShapeError
from .model import ActionPoses, roll_out

POSE_WEIGHT = 200.0
KL_WEIGHT = 0.002
ADVERSARIAL_WEIGHT = 5.0
IMAGE_WEIGHT = 30.0
PERSON_WEIGHT = 10.0
PERCEPTUAL_WEIGHT = 5.0
# Of torchvision's VGG19: the convolutions before each compared layer, and that layer's weight.
VGG_LEVELS = ((0,), (2, 5), (7, 10), (12, 14, 16, 19), (21, 23, 25, 28))
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
VGG_POOLS = (5, 10, 19, 28)
NUM_DRAWS = 3


class PoseLoss(NamedTuple):
    """The three errors of the poses (3,), each weighted, and the weighted distance of the latents from normal ones."""

    poses: Tensor
    latents: Tensor

    @property
    def total(self) -> Tensor:
        return self.poses.sum() + self.latents


def pose_loss(
    model: ActionPoses, source: Tensor, targets: Tensor, action: Tensor, noise: Tensor, kl_weight: float = KL_WEIGHT
) -> PoseLoss:
    """The released loss of three predictions of each clip, for 4 steps or any other number.

    source is (B, P), targets (B, T + 1, P) the poses after it, action (B,), noise (3, T + 1, B, Z). The first
    prediction is compared with targets 1 to T, the second with the same but its last with T + 1, the third with 2 to
    T + 1. The KL part is a sum over clips, steps and latents of the first prediction alone: it grows with B.
    Raises ShapeError if the sizes do not fit each other.
    """
    steps = noise.shape[1] - 1
    if noise.shape[0] != NUM_DRAWS or targets.shape[1] != steps + 1:
        raise ShapeError(
            f"training: {NUM_DRAWS} draws of noise for {targets.shape[1] - 1} steps expected, {tuple(noise.shape)} "
            "found. Clips hold the source pose and one target more than there are steps."
        )
    # One pass of three times the rows is the same as three passes, and quicker.
    made = roll_out(model, source.repeat(NUM_DRAWS, 1), action.repeat(NUM_DRAWS), noise.transpose(0, 1).flatten(1, 2))
    early, late = targets[:, :-1], targets[:, 1:]
    wanted = torch.stack([early, torch.cat([early[:, :-1], late[:, -1:]], dim=1), late])
    poses = POSE_WEIGHT * (made.poses.unflatten(0, (NUM_DRAWS, -1)) - wanted).abs().flatten(1).mean(1)
    mean, log_variance = made.mean[: len(source)], made.log_variance[: len(source)]
    latents = -0.5 * kl_weight * (1 + log_variance - mean.square() - log_variance.exp()).sum()
    return PoseLoss(poses, latents)


def critic_loss(critic, made: Tensor, made_maps: Tensor, real: Tensor, real_maps: Tensor) -> Tensor:
    """What the critic is trained for: 0 on made pictures (B, 3, S, S), 1 on real ones, each with its pose's maps."""
    wrong = critic(made, made_maps)[0].square().mean()
    return ADVERSARIAL_WEIGHT * (wrong + adversarial_error(critic, real, real_maps))


def adversarial_loss(critic, made: Tensor, maps: Tensor) -> Tensor:
    """What the generator is trained for where no true picture is known: that the critic takes its own for real."""
    return ADVERSARIAL_WEIGHT * adversarial_error(critic, made, maps)


def adversarial_error(critic, image: Tensor, maps: Tensor) -> Tensor:
    """How far the critic's verdict on pictures is from 1, squared."""
    return (critic(image, maps)[0] - 1).square().mean()


def generator_losses(
    critic, made: Tensor, real: Tensor, maps: Tensor, person: Tensor, vgg: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The parts of the generator's loss where the true picture is known; their sum is the loss.

    person (B, 1 or 3, S, S) is 1 where the person is. Without `vgg`, the weights of read_vgg(), that part is missing.
    """
    verdict, features = critic(made, maps)
    _, wanted = critic(real, maps)
    losses = {
        "image": IMAGE_WEIGHT * ((1 + PERSON_WEIGHT * person) * (made - real).abs()).mean(),
        "adversarial": ADVERSARIAL_WEIGHT * (verdict - 1).square().mean(),
        "features": sum(F.l1_loss(found, true) for found, true in zip(features, wanted)),
    }
    if vgg is not None:
        losses["perceptual"] = PERCEPTUAL_WEIGHT * perceptual_error(vgg, made, real)
    return losses


def perceptual_error(vgg: Mapping[str, Tensor], made: Tensor, real: Tensor) -> Tensor:
    """The weighted L1 distance of five layers of VGG19; pictures go in as they are, in -1..1, as released."""
    with torch.no_grad():
        wanted = _vgg_features(vgg, real)
    found = _vgg_features(vgg, made)
    return sum(weight * F.l1_loss(a, b) for weight, a, b in zip(VGG_WEIGHTS, found, wanted))


def check_vgg(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The convolutions that perceptual_error() needs, of a state of torchvision's vgg19.

    Raises FileError if they are not there.
    """
    wanted = [f"features.{number}.{part}" for level in VGG_LEVELS for number in level for part in ("weight", "bias")]
    missing = [key for key in wanted if key not in tensors]
    if missing:
        raise FileError(f"{name}: no VGG19 of torchvision: {missing[0]} is missing. Use vgg19-dcbb9e9d.pth.")
    return {key: tensors[key].float() for key in wanted}


def _vgg_features(vgg: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    features = []
    for level in VGG_LEVELS:
        for number in level:
            if number in VGG_POOLS:
                x = F.max_pool2d(x, 2)
            x = F.conv2d(x, vgg[f"features.{number}.weight"], vgg[f"features.{number}.bias"], padding=1).relu()
        features.append(x)
    return features
