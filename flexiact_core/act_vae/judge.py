"""Which action a few poses show, by a small network that learned it on procedural figures.

Shape letters: B clips, T poses, A actions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import POSE_WIDTH

JUDGED_POSES = 9
FEATURES = 64


class PoseJudge(nn.Module):
    """Two layers over nine poses of a clip; what it sees before its last layer are its features."""

    def __init__(self, num_actions: int):
        super().__init__()
        linear = nn.modules.linear.Linear
        self.layers = nn.ModuleList([linear(JUDGED_POSES * POSE_WIDTH, 96), linear(96, FEATURES)])
        self.verdict = linear(FEATURES, num_actions)

    def features(self, poses: Tensor) -> Tensor:
        """What the judge sees in clips (B, T, 26) in -1..1, the source pose first: (B, 64), whatever their length."""
        spread = F.interpolate(poses.transpose(1, 2), JUDGED_POSES, mode="linear", align_corners=True)
        x = spread.transpose(1, 2).flatten(1)
        for layer in self.layers:
            x = layer(x).relu()
        return x

    def forward(self, poses: Tensor) -> Tensor:
        """Scores (B, A) of the actions, before a softmax."""
        return self.verdict(self.features(poses))


@torch.no_grad()
def judge_actions(judge: PoseJudge, poses: Tensor) -> Tensor:
    """The number of the action that each clip (B, T, 26) shows."""
    return judge(poses).argmax(-1)
