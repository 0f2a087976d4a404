"""The small random models are what their users take them for."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from small_models import make_base, make_fae, make_refadapter, weights_of


def test_every_parameter_is_non_zero_and_follows_from_the_seed(tmp_path):
    first, again, other = (make_base(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 5)))
    for part in ("transformer", "vae", "text_encoder"):
        states = [weights_of(folder / part) for folder in (first, again, other)]
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


def test_a_base_is_laid_out_as_the_released_one(small_base):
    def names(part):
        return {file.name for file in (small_base / part).iterdir()}

    for part, stem in (("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")):
        shards = {name for name in names(part) if "-of-" in name}
        assert len(shards) > 1
        assert names(part) == shards | {"config.json", f"{stem}.safetensors.index.json"}
        index = json.loads((small_base / part / f"{stem}.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == shards
    assert names("vae") == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert names("scheduler") == {"scheduler_config.json"}
    assert names("tokenizer") == {
        "spiece.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
    }  # fmt: skip
    assert "shared.weight" in weights_of(small_base / "text_encoder")
    assert "encoder.embed_tokens.weight" not in weights_of(small_base / "text_encoder")
    config = json.loads((small_base / "transformer" / "config.json").read_text())
    assert config["_diffusers_version"] == "0.31.0.dev0" and "patch_size_t" not in config
