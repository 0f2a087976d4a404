"""The bias: when, during denoising, and how strongly video attends to the action (frequency-aware weighting)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import SettingError

Weighting = Literal["paper", "release"]


@dataclass(frozen=True)
class MotionBias:
    """How strongly video tokens attend to motion tokens, by timestep (FlexiAct section 3.4).

    strength is alpha, in attention logits. From timestep 999 down to `hold_until` the bias is held, from there it
    falls along a cosine to 0 at `off_below`. Timesteps are training timesteps: 999 is pure noise, 0 the clean video.
    `weighting` "paper" scales the whole curve by strength; "release" scales only the held part, and its ramp starts
    at 1 whatever the strength, as the authors' code does.
    Raises SettingError if hold_until is not above off_below or strength is not a finite number.
    """

    strength: float = 1.0
    hold_until: int = 800
    off_below: int = 700
    weighting: Weighting = "paper"

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise SettingError(f"bias_strength {self.strength}: a finite number is needed. 1 is the paper's value.")
        if self.hold_until <= self.off_below:
            raise SettingError(
                f"hold_until {self.hold_until} must lie above off_below {self.off_below}: the bias is held down "
                "to the first timestep and has fallen to 0 at the second. The paper uses 800 and 700."
            )
        if self.weighting not in ("paper", "release"):
            raise SettingError(f"weighting '{self.weighting}': choose 'paper' or 'release'.")

    def at(self, timestep: float) -> float:
        """The bias in logits at one timestep (0..999)."""
        if timestep >= self.hold_until:
            return self.strength
        if timestep <= self.off_below:
            return 0.0
        progress = (timestep - self.hold_until) / (self.off_below - self.hold_until)
        peak = self.strength if self.weighting == "paper" else 1.0
        return peak / 2 * (math.cos(math.pi * progress) + 1)


PAPER_BIAS = MotionBias()
