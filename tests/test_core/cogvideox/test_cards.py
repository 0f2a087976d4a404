from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from flexiact_core.cogvideox.acceleration import EXACT, Acceleration
from flexiact_core.cogvideox.cards import CARDS, TILES, Plan, in_words, label, plan_for, plan_of, with_tiles
from flexiact_core.cogvideox.family import COGVIDEOX_1_0
from flexiact_core.cogvideox.kinds import COGVIDEOX_5B_I2V, empty_transformer
from flexiact_core.cogvideox.memory import decode_bytes, transformer_bytes
from flexiact_core.errors import SettingError

GB = 2**30
RELEASED = COGVIDEOX_5B_I2V | {
    "attention_head_dim": 64, "time_embed_dim": 512, "text_embed_dim": 4096, "sample_width": 90, "sample_height": 60,
    "sample_frames": 49, "patch_size_t": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def released():
    """The released base's sizes, without memory."""
    vae = SimpleNamespace(config=SimpleNamespace(block_out_channels=(128, 256, 256, 512)))
    return SimpleNamespace(transformer=empty_transformer(RELEASED), vae=vae, dtype=torch.bfloat16, family=COGVIDEOX_1_0)


def weight_bytes(base, plan: Plan) -> int:
    large = {
        name for name, _ in base.transformer.named_parameters() if name.startswith("transformer_blocks.")
    } if plan.float8 else set()  # fmt: skip
    return sum(
        p.numel() * (1 if name in large and p.ndim == 2 and "norm" not in name else 2)
        for name, p in base.transformer.named_parameters()
    )


@pytest.mark.parametrize("gigabytes", [12, 16, 24])
def test_what_a_card_is_asked_to_hold_fits_it_at_full_size(released, gigabytes):
    plan = CARDS[gigabytes]
    denoising = weight_bytes(released, plan) + transformer_bytes(released, 13, 60, 90, 2, plan.acceleration)
    # The VAE's own weights are 0.43 GB; a tenth of the card is not ours.
    decoding = decode_bytes(released, 49, 480, 720, plan.tile_px) + 0.43e9
    assert max(denoising, decoding) < 0.93 * gigabytes * GB


def test_on_the_smallest_card_weights_are_streamed_and_all_else_fits(released):
    plan = CARDS[8]
    work = transformer_bytes(released, 13, 60, 90, 2, plan.acceleration)
    assert work + weight_bytes(released, plan) > 8 * GB > 1.5 * work
    assert decode_bytes(released, 49, 480, 720, plan.tile_px) < 0.4 * decode_bytes(released, 49, 480, 720)


@pytest.mark.parametrize(
    ("total", "expected"),
    [(4, 8), (7.8, 8), (10, 8), (11.6, 12), (12, 12), (15.7, 16), (22, 16), (23.6, 24), (80, 24)],
)
def test_a_card_is_known_by_its_memory(total, expected):
    assert plan_for(int(total * GB)) == CARDS[expected]


def test_without_a_card_and_on_a_large_one_all_is_as_released():
    assert plan_for(None) == CARDS[24] == Plan() == Plan(False, None, EXACT, False)


def test_a_card_is_chosen_by_its_label_and_others_are_refused():
    assert [plan_of(label(size)) for size in CARDS] == list(CARDS.values())
    for unknown in ("10 GB", "8", ""):
        with pytest.raises(SettingError, match="choose auto or one of 8 GB, 12 GB, 16 GB, 24 GB"):
            plan_of(unknown)


def test_tiles_are_chosen_by_name_and_the_rest_of_the_plan_stays():
    small = with_tiles(CARDS[12], "small")
    assert small == Plan(True, TILES["small"], EXACT, True)
    assert with_tiles(small, "large") == CARDS[12]
    with pytest.raises(SettingError, match="tiles 'tiny'.*large, small, whole"):
        with_tiles(small, "tiny")


def test_small_tiles_overlap_by_whole_latent_pixels():
    # A fifth of the width and a sixth of the height, as diffusers' tiled decoding has them.
    height, width = TILES["small"]
    assert height % 8 == width % 8 == 0 and (height // 8) % 6 == 0 and (width // 8) % 5 == 0


def test_a_plan_is_told_in_words():
    assert in_words(CARDS[8]) == (
        "large matrices in float8, decoding in tiles of 200x144, step cache first_block at 0.1, parts leave the card "
        "after their work."
    )
    assert "weights as stored, decoding in usual tiles, every step in full" in in_words(Plan())
    assert CARDS[8].acceleration == Acceleration("first_block", 0.1)
