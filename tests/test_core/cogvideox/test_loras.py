import json

import pytest
import torch
from lora_layouts import LAYOUTS, in_layout
from safetensors.torch import save_file

from flexiact_core.cogvideox.loras import check_lora, load_lora
from flexiact_core.errors import FileError
from flexiact_core.flexiact.refadapter import to_lora, with_refadapters


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_recorded_adapter(golden, tmp_path, layout):
    save_file(in_layout(layout, golden.refadapter), tmp_path / "x.safetensors")
    lora = load_lora(tmp_path / "x.safetensors")
    assert len(lora.matrices) == 12
    inputs = golden.tensors("forward")
    adapted = with_refadapters(golden.transformer, [(lora, 0.7)], torch.device("cpu"), torch.float32)
    found = adapted(
        inputs["hidden_states"], inputs["encoder_hidden_states"], inputs["timestep"],
        image_rotary_emb=(inputs["rope_cos"], inputs["rope_sin"]), return_dict=False,
    )[0]  # fmt: skip
    torch.testing.assert_close(found, inputs["out_refadapter_w0.7"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("metadata", [None, {"transformer.lora_alpha": 2, "transformer.r": 4}])
def test_without_alpha_the_scale_is_the_metadatas_or_1(golden, tmp_path, metadata):
    tensors = {key: value for key, value in in_layout("diffusers", golden.refadapter).items() if "alpha" not in key}
    said = {} if metadata is None else {"lora_adapter_metadata": json.dumps(metadata)}
    save_file(tensors, tmp_path / "x.safetensors", metadata=said)
    scales = {own.scale for own in load_lora(tmp_path / "x.safetensors").matrices.values()}
    assert scales == {1.0 if metadata is None else 0.5}


def test_the_base_is_as_it_was(golden):
    before = {key: value.clone() for key, value in golden.transformer.state_dict().items()}
    with_refadapters(golden.transformer, [(golden.refadapter, 1.0)], torch.device("cpu"), torch.float32)
    after = golden.transformer.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_other_files_are_refused_with_what_they_are(golden, tmp_path):
    file = tmp_path / "x.safetensors"
    for tensors, words in (
        (golden.tensors("fae"), "this is an action"),
        (golden.tensors("transformer"), "a whole model"),
        ({"lora_te_text_model.lora_down.weight": torch.zeros(2, 2)}, "1 of 1 tensors are no LoRA matrices"),
        ({"transformer_blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 2)}, "do not fit each other"),
    ):
        save_file(tensors, file)
        with pytest.raises(FileError, match=words):
            load_lora(file)


def test_a_lora_of_another_model_is_refused_by_the_weight(golden, released_transformer):
    shapes = {key: value.shape for key, value in released_transformer.state_dict().items()}
    with pytest.raises(FileError, match=r"changes transformer_blocks.0.attn1.to_q.weight of \[128, 128\]"):
        check_lora(to_lora(golden.refadapter), shapes)
