"""One choice of a card, and what can be set by hand beside it."""

from __future__ import annotations

import pytest
import torch

cards = pytest.importorskip("flexiact_pack.nodes.cards", reason="needs ComfyUI: run `make test`")

from flexiact_core.cogvideox.acceleration import EXACT, Acceleration  # noqa: E402
from flexiact_core.cogvideox.cards import CARDS, TILES, Plan  # noqa: E402


def choose(card="auto", weights="auto", tiles="auto", offload="auto"):
    return cards.choose_plan(card, weights, tiles, offload)


@pytest.mark.parametrize("total", [None, 80 * 2**30])
def test_auto_without_a_card_or_on_a_large_one_is_as_released_and_says_nothing(total, monkeypatch, said):
    monkeypatch.setattr(cards.memory, "card_bytes", lambda: total)
    assert choose() == Plan()
    assert said == []


def test_auto_on_a_small_card_is_that_cards_plan_and_is_told(monkeypatch, said):
    monkeypatch.setattr(cards.memory, "card_bytes", lambda: int(11.6 * 2**30))
    assert choose() == CARDS[12]
    assert len(said) == 1 and said[0].startswith("Card auto: large matrices in float8")


def test_each_part_can_be_set_by_hand(said):
    plan = choose("8 GB", "as stored", "large", "stay")
    assert plan == Plan(float8=False, tile_px=None, acceleration=Acceleration("first_block", 0.1), leaves=False)
    assert choose("24 GB", "float8_fast", "small", "leave") == Plan(True, TILES["small"], EXACT, True)


@pytest.fixture
def loaded(copied_base, said):
    """A function that loads the small base for a card, as the node does."""
    import comfy.model_management
    from flexiact_pack.nodes.cogvideox import LoadCogVideoXI2V

    def load(**choices):
        with torch.inference_mode():
            return LoadCogVideoXI2V.execute(copied_base, "auto", "fp32", **choices).args[0]

    yield load
    comfy.model_management.unload_all_models()


def test_a_prompt_without_the_choice_loads_as_it_always_did(loaded):
    model = loaded()
    assert model.plan == Plan()
    assert model.base.transformer.transformer_blocks[0].attn1.to_q.weight.dtype == torch.float32


def test_the_card_reaches_weights_tiles_step_cache_and_offload(loaded, running_node, monkeypatch):
    import comfy.model_management as management
    from flexiact_pack.nodes import sampling

    from flexiact_core.cogvideox import model as core

    model = loaded(weights="auto", card="8 GB")
    assert model.base.transformer.transformer_blocks[0].attn1.to_q.weight.dtype == torch.float8_e4m3fn
    assert sampling.acceleration_of(model, None).run == Acceleration("first_block", 0.1)
    by_hand = sampling.RunAcceleration(EXACT)
    assert sampling.acceleration_of(model, by_hand) is by_hand
    tiles = []
    decode = core.decode_latents
    monkeypatch.setattr(core, "decode_latents", lambda *args: tiles.append(args[3]) or decode(*args))
    frames = sampling.decode(model, torch.zeros(1, 3, 16, 8, 8), (9, 64, 64))
    assert frames.shape == (9, 64, 64, 3) and tiles == [TILES["small"]]
    assert all(held.model is not model.vae for held in management.current_loaded_models)


def test_on_a_large_card_a_part_stays_loaded(loaded, running_node):
    import comfy.model_management as management
    from flexiact_pack.nodes import sampling

    model = loaded(card="24 GB")
    sampling.decode(model, torch.zeros(1, 3, 16, 8, 8), (9, 64, 64))
    assert any(held.model is model.vae for held in management.current_loaded_models)
