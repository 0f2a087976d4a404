"""Motion attention in a model whose attention calls do not say which layer they are of: the calls are counted.

Nothing here knows a model: it says how a layer attends (motion.py), and in what order layers come.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import SettingError
from .motion import Attend, LayerMotion, attend_with_motion, attend_with_motion_by


class CountedMotion:
    """Motion attention of one pass through a model: each call of attend() is the next layer's.

    motion holds a LayerMotion for every layer, num_text is the number of text tokens, which come first, and bias is
    added to the logits of (video query, motion key).
    """

    def __init__(self, motion: Sequence[LayerMotion], num_text: int, bias: float):
        self.motion, self.num_text, self.bias = motion, num_text, bias
        self.layers_done = 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor, by: Attend | None = None) -> Tensor:
        """Attention (B, H, N, D) of the next layer, over its own keys (B, H, N, D) and its motion tokens.

        `by`, if given, attends in place of ours. Raises SettingError if the model attends more often than the action
        has layers.
        """
        if self.layers_done >= len(self.motion):
            self._raise("more")
        layer = self.motion[self.layers_done]
        self.layers_done += 1
        layer = LayerMotion(layer.key.to(query), layer.value.to(query), layer.log_weight)
        if by is None:
            return attend_with_motion(query, key, value, self.num_text, layer, self.bias)
        return attend_with_motion_by(by, query, key, value, self.num_text, layer, self.bias)

    def check(self) -> None:
        """Passes after a whole pass, and after one that a step cache answered. Raises SettingError otherwise."""
        if self.layers_done not in (0, len(self.motion)):
            self._raise(str(self.layers_done))

    def _raise(self, found: str):
        raise SettingError(
            f"Apply Action: the action has {len(self.motion)} layers, and {found} attended in this step. Another node "
            "skips or repeats layers of the model. Take that node out of the graph, or use Action Transfer."
        )
