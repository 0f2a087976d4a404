"""P2I: a picture of a person and two poses become the picture in the second pose; and the critic it was trained with.

Shape letters: B pictures, S side in pixels, J joints, C channels. Keys are those of the released files.
Source: Zhu et al., Progressive Pose Attention Transfer, CVPR 2019; the mask and the class are ACT-VAE's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Embedding, ReflectionPad2d, ReLU

from ..errors import ShapeError
from .model import NUM_JOINTS

SIDE_PX = 128
HEAT_SHARPNESS = 14.3


class Upsample(nn.Module):
    """A transposed convolution to twice the size, weight (C_in, C_out, 3, 3)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))
        nn.init.normal_(self.weight, 0.0, 0.02)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1, output_padding=1)


class PlainNorm(nn.Module):
    """Batch normalisation without scale and shift; ComfyUI's own layer of that kind needs both."""

    def __init__(self, channels: int, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(x, self.running_mean, self.running_var, None, None, self.training, self.momentum)


class ClassNorm(nn.Module):
    """Batch normalisation whose scale and shift belong to the action."""

    def __init__(self, channels: int, num_actions: int):
        super().__init__()
        self.bn = PlainNorm(channels, momentum=0.001)
        self.embed = Embedding(num_actions, 2 * channels)
        with torch.no_grad():
            self.embed.weight.copy_(torch.cat([torch.ones(channels), torch.zeros(channels)]).expand(num_actions, -1))

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        scale, shift = self.embed(action)[..., None, None].chunk(2, dim=1)
        return scale * self.bn(x) + shift


class AttentionBlock(nn.Module):
    """One step of pose attention: stream 2 (poses) says where stream 1 (the picture) changes."""

    def __init__(self, channels: int, first: bool):
        super().__init__()
        wide = channels if first else 2 * channels
        self.conv_block_stream1 = nn.Sequential(
            ReflectionPad2d(1), Conv2d(channels, channels, 3), BatchNorm2d(channels), ReLU(),
            ReflectionPad2d(1), Conv2d(channels, channels, 3), BatchNorm2d(channels),
        )  # fmt: skip
        self.conv_block_stream2 = nn.Sequential(
            ReflectionPad2d(1), Conv2d(wide, wide, 3), BatchNorm2d(wide), ReLU(),
            ReflectionPad2d(1), Conv2d(wide, channels, 3),
        )  # fmt: skip

    def forward(self, picture: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        pose = self.conv_block_stream2(pose)
        picture = picture + self.conv_block_stream1(picture) * pose.sigmoid()
        return picture, torch.cat([pose, picture], dim=1)


class PoseToImage(nn.Module):
    """The generator. The released sizes are width 64, 9 blocks, 9 actions: 41.4 M parameters."""

    def __init__(self, num_actions: int = 9, width: int = 64, num_blocks: int = 9):
        super().__init__()
        self.model_stream1_down = _down_stream(3, width)
        self.model_stream2_down = _down_stream(2 * NUM_JOINTS, width)
        self.att = nn.ModuleList(AttentionBlock(4 * width, number == 0) for number in range(num_blocks))
        self.model_stream1_up_1 = nn.Sequential(Upsample(4 * width, 2 * width))
        self.model_stream1_up_1_bn = ClassNorm(2 * width, num_actions)
        self.model_stream1_up_2 = nn.Sequential(Upsample(2 * width, width))
        self.model_stream1_up_2_bn = ClassNorm(width, num_actions)
        self.model_stream1_up = nn.Sequential(ReflectionPad2d(3), Conv2d(width, 4, 7))

    def forward(self, image: Tensor, source_maps: Tensor, target_maps: Tensor, action: Tensor) -> Tensor:
        """The picture (B, 3, S, S) in -1..1 in the target pose.

        image is (B, 3, S, S) in -1..1, both maps (B, 13, S, S) of draw_heat_maps(), action (B,). S is a multiple of 4.
        """
        picture = self.model_stream1_down(image)
        pose = self.model_stream2_down(torch.cat([source_maps, target_maps], dim=1))
        for block in self.att:
            picture, pose = block(picture, pose)
        picture = self.model_stream1_up_1_bn(self.model_stream1_up_1(picture), action).relu()
        picture = self.model_stream1_up_2_bn(self.model_stream1_up_2(picture), action).relu()
        colour, mask = self.model_stream1_up(picture).split([3, 1], dim=1)
        mask = mask.sigmoid()
        return colour.tanh() * mask + image * (1 - mask)


class ResidualBlock(nn.Module):
    """Two convolutions beside the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_block = nn.Sequential(
            ReflectionPad2d(1), Conv2d(channels, channels, 3, bias=False), BatchNorm2d(channels), ReLU(),
            ReflectionPad2d(1), Conv2d(channels, channels, 3, bias=False), BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class PoseCritic(nn.Module):
    """The critic of picture and target pose: it has no last layer, its raw map is the verdict."""

    def __init__(self, width: int = 64, num_blocks: int = 3):
        super().__init__()
        self.model1 = nn.Sequential(
            ReflectionPad2d(3), Conv2d(3 + NUM_JOINTS, width, 7, bias=False), BatchNorm2d(width), ReLU()
        )
        self.model2, self.model3, self.model4 = (
            nn.Sequential(
                Conv2d(width * 2**level, width * 2 ** (level + 1), 3, stride=2, padding=1, bias=False),
                BatchNorm2d(width * 2 ** (level + 1)),
                ReLU(),
            )
            for level in range(3)
        )
        self.model_res = nn.Sequential(*[ResidualBlock(8 * width) for _ in range(num_blocks)])

    def forward(self, image: Tensor, maps: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The verdict (B, 8 width, S/8, S/8) on a picture (B, 3, S, S) with its maps, and the features of 3 levels."""
        x = self.model1(torch.cat([image, maps], dim=1))
        features = []
        for level in (self.model2, self.model3, self.model4):
            x = level(x)
            features.append(x)
        return self.model_res(x), features


def draw_heat_maps(points: Tensor, side: int = SIDE_PX) -> Tensor:
    """A soft spot for each joint: maps (B, J, S, S) in 0..1 from points (B, J, 2) in -1..1, x then y."""
    if points.ndim != 3 or points.shape[-1] != 2:
        raise ShapeError(f"joints: (pictures, joints, 2) expected, {tuple(points.shape)} found.")
    # As released, -1 and 1 are the middles of the outer pixels here, and half a pixel farther out in the poses.
    grid = torch.linspace(-1, 1, side, dtype=points.dtype, device=points.device)
    across = (grid - points[..., 0, None]).square()
    down = (grid - points[..., 1, None]).square()
    return torch.exp(-(HEAT_SHARPNESS**2) * (across[..., None, :] + down[..., :, None]))


def start_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Sets the weights that a training starts from: normal with 0.02, norms around 1, no bias. Changes `network`."""
    for layer in network.modules():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(layer, Conv2d | Upsample | BatchNorm2d) and weight is not None:
            centre = 1.0 if isinstance(layer, BatchNorm2d) else 0.0
            weight.data = torch.randn(weight.shape, generator=generator) * 0.02 + centre
            if bias is not None:
                bias.data.zero_()


def _down_stream(inputs: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = [ReflectionPad2d(3), Conv2d(inputs, width, 7), BatchNorm2d(width), ReLU()]
    for level in (1, 2):
        layers += [Conv2d(level * width, 2 * level * width, 3, stride=2, padding=1), BatchNorm2d(2 * level * width)]
        layers.append(ReLU())
    return nn.Sequential(*layers)
