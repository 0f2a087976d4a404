"""Modules in ComfyUI's care, and tensors that outlive its inference mode."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

memory = pytest.importorskip("flexiact_pack.nodes.host.memory", reason="needs ComfyUI: run `make test`")


@pytest.mark.parametrize(("name", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16"), ("fp32", "float32")])
def test_a_named_format_is_that_format(name, dtype):
    assert memory.compute_dtype(name) == getattr(torch, dtype)


@pytest.mark.parametrize(
    ("cpu", "bf16", "expected"),
    [(True, False, torch.float32), (False, True, torch.bfloat16), (False, False, torch.float16)],
)
def test_auto_is_the_best_that_the_device_computes_in(monkeypatch, cpu, bf16, expected):
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "is_device_cpu", lambda device: cpu)
    monkeypatch.setattr(comfy.model_management, "should_use_bf16", lambda device: bf16)
    assert memory.compute_dtype("auto") == expected


def test_a_module_is_loaded_for_work_and_gives_ordinary_tensors(small_model):
    with torch.inference_mode(), memory.on_device(small_model.vae, 1000) as device:
        made = torch.ones(2) * 2
        assert device == torch.device("cpu") and not torch.is_grad_enabled()
    assert not made.is_inference()


def test_room_is_asked_of_comfyui(small_model, monkeypatch):
    import comfy.model_management

    asked = []
    monkeypatch.setattr(
        comfy.model_management,
        "load_models_gpu",
        lambda models, memory_required: asked.append((models, memory_required)),
    )
    with memory.on_device(small_model.vae, 123):
        pass
    assert asked == [([small_model.vae], 123)]


def test_weights_that_comfyui_made_inference_tensors_of_take_part_in_training(small_model):
    transformer = small_model.base.transformer
    weight = transformer.transformer_blocks[0].attn1.to_q.weight
    before = weight.detach().clone()
    with torch.inference_mode():
        weight.data = weight.data.clone()
    assert weight.is_inference()
    with torch.inference_mode(), memory.on_device_to_train(small_model.transformer, 0):
        assert torch.is_grad_enabled() and not weight.is_inference()
        learned = torch.ones(weight.shape[1], requires_grad=True)
        (transformer.transformer_blocks[0].attn1.to_q.weight @ learned).sum().backward()
    assert_close(learned.grad, before.sum(0))
    assert_close(weight.detach(), before)


def test_a_copy_of_anothers_tensor_can_be_trained_on():
    with torch.inference_mode():
        given = torch.rand(3)
    copy = memory.ordinary(given)
    assert not copy.is_inference() and torch.equal(copy, given)


@pytest.mark.parametrize(
    ("choice", "total", "expected"),
    [
        ("on", 1000, (20, True)), ("off", 1000, (500, False)), ("auto", 1000, (500, False)), ("auto", 600, (20, True)),
        # A tenth stays free: 500 + 50 fit into 0.9 of 612 and not of 611.
        ("auto", 612, (500, False)), ("auto", 611, (20, True)),
    ],
)  # fmt: skip
def test_gradients_are_checkpointed_where_memory_would_not_do(monkeypatch, choice, total, expected):
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda device: total)
    patcher = SimpleNamespace(model_size=lambda: 50, load_device=None)
    assert memory.choose_checkpointing(patcher, choice, (500, 20)) == expected
