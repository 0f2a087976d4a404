"""The bias: when, during denoising, and how strongly video attends to the action (frequency-aware weighting)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import FileError, SettingError

Weighting = Literal["paper", "release"]

# The key of a transformer's config under which a base says when motion forms in it: strength, hold_until, off_below.
KEY = "motion_bias"
# The weighting that stands for it.
AUTO = "auto"


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
            raise SettingError(f"weighting '{self.weighting}': choose '{AUTO}', 'paper' or 'release'.")

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


def own_bias(config: Mapping[str, Any]) -> MotionBias:
    """The bias of the base whose transformer has this config: what it says under KEY, the paper's where it is silent.

    Which timesteps decide motion depends on how many numbers a clip has, and so on the base.
    Raises FileError if KEY holds anything else than numbers that can be a MotionBias.
    """
    said = config.get(KEY) or {}
    try:
        own = MotionBias(**said)
        numbers = (own.strength, own.hold_until, own.off_below)
        if own.weighting != PAPER_BIAS.weighting or not all(0 <= value <= 1000 for value in numbers):
            raise SettingError("strength, and timesteps from 0 to 1000, are needed.")
    except (TypeError, SettingError) as error:
        raise FileError(f"transformer/config.json: '{KEY}' holds {said!r:.80}: {error}") from error
    return own


def choose_bias(
    config: Mapping[str, Any], strength: float, hold_until: int, off_below: int, weighting: str
) -> MotionBias:
    """The bias that these settings mean on the base whose transformer has this config.

    With weighting AUTO it is own_bias(), `strength` times as strong; the two timesteps are not used then.
    Raises SettingError as MotionBias does, FileError as own_bias() does.
    """
    if weighting != AUTO:
        return MotionBias(strength, hold_until, off_below, weighting)
    own = own_bias(config)
    return replace(own, strength=strength * own.strength)
