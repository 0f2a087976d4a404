"""What a graphics card of a given memory is asked to hold at once: how weights lie in it, tiles, step cache, offload.

The sizes are counted, for CogVideoX-5B-I2V at 49 frames of 720x480 (benchmarks/RESULTS.md): 11.1 GB of weights in 16
bits, 6.4 GB with the large matrices in float8, 3.5 GB beside them while it denoises, 0.7 GB more with first_block, 4.6
GB for decoding in large tiles and 1.7 GB in small ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import SettingError
from .acceleration import EXACT, Acceleration

# Height and width in pixels of what is decoded at once, by name; whole is as large as a video may be. The overlaps of
# a fifth and a sixth have to be whole latent pixels, which small ones of other sizes would miss.
TILES: dict[str, tuple[int, int] | None] = {"large": None, "small": (144, 200), "whole": (8192, 8192)}


@dataclass(frozen=True)
class Plan:
    """How a base takes its place on a card.

    float8: whether large matrices of the transformer are kept in 8 bits. tile_px is the height and width of a decoding
    tile; None: the family's own. step_cache is what runs use that bring no Acceleration of their own.
    leaves: whether a part leaves the card as soon as its work is done, so that the next has all of it.
    """

    float8: bool = False
    tile_px: tuple[int, int] | None = None
    acceleration: Acceleration = EXACT
    leaves: bool = False


# The card that the base has to itself, by gigabytes.
CARDS = {
    # Neither 16 nor 8 bits fit beside the work: weights are streamed in each step, so a step saved saves most here.
    8: Plan(float8=True, tile_px=TILES["small"], acceleration=Acceleration("first_block", 0.1), leaves=True),
    12: Plan(float8=True, leaves=True),
    16: Plan(leaves=True),
    24: Plan(),
}


def plan_for(total_bytes: int | None) -> Plan:
    """The plan for a card of so much memory: that of the largest of CARDS that is not larger, else of the smallest.

    None, for a run without a card, is the plan of a large one.
    """
    if total_bytes is None:
        return Plan()
    # A card of 12 GB says a little less of itself.
    gigabytes = total_bytes / 2**30 + 0.75
    return CARDS[max((size for size in CARDS if size <= gigabytes), default=min(CARDS))]


def label(gigabytes: int) -> str:
    """The name of a card of so much memory."""
    return f"{gigabytes} GB"


def plan_of(card: str) -> Plan:
    """The plan for a card by its label(). Raises SettingError if CARDS has none."""
    plans = {label(size): plan for size, plan in CARDS.items()}
    if card not in plans:
        raise SettingError(f"card '{card}': choose auto or one of {', '.join(plans)}.")
    return plans[card]


def with_tiles(plan: Plan, name: str) -> Plan:
    """The plan with other tiles, by their name in TILES. Raises SettingError if there are none of that name."""
    if name not in TILES:
        raise SettingError(f"tiles '{name}': choose one of {', '.join(TILES)}.")
    return replace(plan, tile_px=TILES[name])


def in_words(plan: Plan) -> str:
    """A line on what a plan does, for whoever chose a card and not its parts."""
    cache, tile = plan.acceleration, plan.tile_px
    parts = [
        "large matrices in float8" if plan.float8 else "weights as stored",
        "decoding in usual tiles" if tile is None else f"decoding in tiles of {tile[1]}x{tile[0]}",
        "every step in full" if cache == EXACT else f"step cache {cache.step_cache} at {cache.threshold:g}",
        "parts leave the card after their work" if plan.leaves else "parts stay on the card while there is room",
    ]
    return ", ".join(parts) + "."
