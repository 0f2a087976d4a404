from dataclasses import replace

import torch

from flexiact_core.cogvideox import family as rows
from flexiact_core.cogvideox.family import COGVIDEOX_1_0
from flexiact_core.cogvideox.model import rotary_positions
from flexiact_core.cogvideox.predict import make_predict

CPU = torch.device("cpu")


@torch.no_grad()
def test_a_prediction_is_the_transformers_own(golden):
    recorded = golden.tensors("forward")
    hidden, prompt, timestep = (recorded[key] for key in ("hidden_states", "encoder_hidden_states", "timestep"))
    noisy, condition = hidden.chunk(2, dim=2)
    expected = golden.transformer(
        hidden_states=hidden, encoder_hidden_states=prompt, timestep=timestep, return_dict=False,
        image_rotary_emb=rotary_positions(golden.config, hidden.shape[1], *hidden.shape[-2:]),
    )[0]  # fmt: skip
    found = make_predict(golden.transformer, noisy.shape, CPU)(noisy, condition, prompt, timestep)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_family_with_an_ofs_is_told_it_and_the_prompts_dtype_is_computed_in(golden, monkeypatch):
    monkeypatch.setattr(rows, "FAMILIES", (replace(COGVIDEOX_1_0, ofs=2.0),))
    asked = {}

    def call(**inputs):
        asked.update(inputs)
        return inputs["hidden_states"][:, :, :4]

    latents = torch.zeros(1, 3, 4, 8, 12)
    predict = make_predict(golden.transformer, latents.shape, CPU, call)
    velocity = predict(
        latents, latents, torch.zeros(1, 6, 8, dtype=torch.bfloat16), torch.tensor([5]), {"kernel": None}
    )
    assert asked["ofs"].tolist() == [2.0] and asked["attention_kwargs"] == {"kernel": None}
    assert asked["hidden_states"].dtype == torch.bfloat16 and velocity.dtype == torch.float32
