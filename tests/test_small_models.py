"""The small random models are what their users take them for."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from small_models import make_base, make_fae, make_refadapter


def test_every_parameter_is_non_zero_and_follows_from_the_seed(tmp_path):
    first, again, other = (make_base(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 5)))
    for part in ("transformer", "vae", "text_encoder"):
        file = next((first / part).glob("*.safetensors")).relative_to(first)
        states = [load_file(folder / file) for folder in (first, again, other)]
        for key, value in states[0].items():
            assert (value != 0).all(), key
            assert torch.equal(value, states[1][key])
            assert not torch.equal(value, states[2][key])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_released_layouts(tmp_path, suffix):
    def load(file):
        return load_file(file) if suffix == ".safetensors" else torch.load(file, weights_only=True)

    fae = load(make_fae(tmp_path / f"fae{suffix}"))
    assert fae["transformer_blocks.1.attn1.processor.motion_inversion_tokens"].shape == (1, 6, 32)
    adapter = load(make_refadapter(tmp_path / f"adapter{suffix}"))
    assert len(fae) == 2 and len(adapter) == 2 * 4 * 2
    assert adapter["transformer_blocks.0.attn1.processor.lora_proj.up.weight"].shape == (32, 4)
    assert adapter["transformer_blocks.0.attn1.processor.lora_q.down.weight"].shape == (4, 32)
    assert all((value != 0).all() for value in [*fae.values(), *adapter.values()])


def test_the_tokenizer_pads_cuts_and_ends(small_base):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_base / "tokenizer")
    assert tokenizer.model_max_length == 32
    short = tokenizer("a cat", padding="max_length", max_length=32).input_ids
    assert len(short) == 32 and short[5] == tokenizer.eos_token_id and short[6] == tokenizer.pad_token_id
    assert len(tokenizer("a cat jumps " * 900, truncation=True, max_length=32).input_ids) == 32
    assert tokenizer("a").input_ids != tokenizer("b").input_ids
