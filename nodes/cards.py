"""One choice of a card, and what it decides: inputs of Load CogVideoX I2V that can each be set by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from .host import memory, progress

if TYPE_CHECKING:
    from ..flexiact_core.cogvideox.cards import Plan

AUTO = "auto"
AS_STORED, FLOAT8, FLOAT8_FAST = "as stored", "float8", "float8_fast"
STAYS, LEAVES = "stay", "leave"
# What a prompt means that was made when there was no such choice.
LARGE = "24 GB"


def weights():
    """How the transformer's weights are kept."""
    return io.Combo.Input(
        "weights",
        options=[AUTO, AS_STORED, FLOAT8, FLOAT8_FAST],
        default=AUTO,
        optional=True,
        advanced=True,
        tooltip=(
            "How the transformer's large matrices are kept in memory. auto: as the card says. as stored: 16 bits each "
            "for the released base. float8: 8 bits, half the memory; rounding changes the video a little, and "
            "RefAdapter then runs beside the weights. float8_fast: also multiplies in 8 bits while sampling, faster "
            "on cards that can (RTX 40 and newer); changes the video more."
        ),
    )


def card_inputs() -> list:
    """The card, and what of it can be set by hand beside `weights`."""
    from ..flexiact_core.cogvideox.cards import CARDS, TILES, label

    return [
        io.Combo.Input(
            "card",
            options=[AUTO, *map(label, CARDS)],
            default=AUTO,
            optional=True,
            tooltip=(
                "Memory of the graphics card; auto looks. Sets weights, tiles and offload, and at 8 GB a step cache. "
                "24 GB: all as released. 16 GB: parts leave the card after their work. 12 GB: float8 too. 8 GB: small "
                "tiles and first_block at 0.1 too. Each can be set by hand, the cache in FlexiAct Acceleration."
            ),
        ),
        io.Combo.Input(
            "tiles",
            options=[AUTO, *TILES],
            default=AUTO,
            optional=True,
            advanced=True,
            tooltip=(
                "How much of a picture is decoded at once. auto: as the card says. large: 360x240 pixels, as released. "
                "small: 200x144, a third of the memory, slower. whole: all of it, four times the memory of large."
            ),
        ),
        io.Combo.Input(
            "offload",
            options=[AUTO, STAYS, LEAVES],
            default=AUTO,
            optional=True,
            advanced=True,
            tooltip=(
                "What becomes of a part whose work is done. auto: as the card says. stay: it stays on the card until "
                "ComfyUI needs the room; the next run starts sooner. leave: it makes room at once."
            ),
        ),
    ]


def choose_plan(card: str, weights: str, tiles: str, offload: str) -> Plan:
    """The plan that these choices make, and a line on the node if it is not that of a large card.

    Raises SettingError if there is no such card or tile.
    """
    from ..flexiact_core.cogvideox.cards import Plan, in_words, plan_for, plan_of, with_tiles

    plan = of_card = plan_for(memory.card_bytes()) if card == AUTO else plan_of(card)
    if weights != AUTO:
        plan = replace(plan, float8=weights != AS_STORED)
    if tiles != AUTO:
        plan = with_tiles(plan, tiles)
    if offload != AUTO:
        plan = replace(plan, leaves=offload == LEAVES)
    if of_card != Plan():
        progress.say(f"Card {card}: {in_words(plan)}")
    return plan
