"""Adapters in the weights through ComfyUI's patchers, and accelerations of a run, without a server."""

from __future__ import annotations

import gc
import hashlib

import pytest
import torch
from memory import held_memory_mb
from small_models import make_base, make_fae, make_refadapter
from torch.testing import assert_close

nodes = pytest.importorskip("flexiact_pack.nodes", reason="There is no ComfyUI to import the nodes in: `make setup`.")
CPU = torch.device("cpu")
SIZE = dict(width=64, height=64, num_frames=9)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from flexiact_core.flexiact.fae import load_fae
    from flexiact_core.flexiact.refadapter import load_refadapter

    folder = tmp_path_factory.mktemp("files")
    adapters = [load_refadapter(make_refadapter(folder / f"{seed}.safetensors", seed)) for seed in (2, 3)]
    return load_fae(make_fae(folder / "fae.safetensors")), *adapters


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture
def model(small):
    return load(small)


def load(folder):
    from flexiact_pack.nodes.cogvideox import to_base_model
    from flexiact_pack.nodes.host import memory

    from flexiact_core.cogvideox.loading import load_base

    with memory.normal_tensors():
        return to_base_model(load_base(folder, folder, torch.float32))


@pytest.fixture(autouse=True)
def nothing_left_loaded(monkeypatch):
    import comfy.model_management
    from flexiact_pack.nodes.host import progress

    monkeypatch.setattr(progress, "say", lambda text: None)
    yield
    comfy.model_management.unload_all_models()


class NoProgress:
    def __init__(self, total, shorter=""):
        pass

    def step(self, *_):
        pass


@pytest.fixture
def draw(monkeypatch, files):
    """Frames of FlexiActSampler for a model, with the FAE."""
    from flexiact_pack.nodes.flexiact import FlexiActSampler
    from flexiact_pack.nodes.host import progress

    monkeypatch.setattr(progress, "SamplingProgress", NoProgress)
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))

    def draw(model, acceleration=None, seed=1, steps=3):
        return FlexiActSampler.execute(
            model, image, "a cat", "", **SIZE, steps=steps, cfg=6.0, bias_strength=1.0, hold_until=800, off_below=700,
            seed=seed, scheduler="DPM", weighting="paper", fae=((files[0], 1.0),), acceleration=acceleration,
        ).args[0]  # fmt: skip

    return draw


def accelerate(**settings):
    defaults = dict(merge_adapter=True, threshold=0.1, interval=3, compiled=False, step_cache="off", attention="auto")
    return nodes.NODE_CLASS_MAPPINGS["FlexiActAcceleration"].execute(**defaults | settings).args[0]


def digest(model) -> str:
    digests = hashlib.sha256()
    for name, value in model.base.transformer.state_dict().items():
        digests.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
    return digests.hexdigest()


def load_plain(model):
    from flexiact_pack.nodes.host import memory

    with memory.on_device(model.transformer, 0):
        pass


def test_merged_equals_separate(model, files, draw):
    adapted = model.with_adapter(files[1], 0.7).with_adapter(files[2], -0.3)
    merged = draw(adapted)
    separate = draw(adapted, accelerate(merge_adapter=False))
    assert_close(merged, separate, atol=1e-4, rtol=0)
    assert (merged - draw(model)).abs().max() > 1e-2


def test_the_weights_come_back_bit_for_bit(model, files, draw):
    before = digest(model)
    draw(model.with_adapter(files[1], 0.7))
    assert digest(model) != before
    load_plain(model)
    assert digest(model) == before


def test_the_weights_come_back_when_the_adapted_model_is_gone(model, files, draw):
    import comfy.model_management as memory

    before = digest(model)
    adapted = model.with_adapter(files[1], 0.7)
    draw(adapted)
    del adapted
    gc.collect()
    memory.unload_all_models()
    assert digest(model) == before


def test_the_weights_come_back_after_cancel(model, files, draw, monkeypatch):
    from flexiact_pack.nodes.host import progress

    class Cancelled(NoProgress):
        def step(self, *_):
            raise InterruptedError

    before, expected = digest(model), draw(model)
    with monkeypatch.context() as patch:
        patch.setattr(progress, "SamplingProgress", Cancelled)
        with pytest.raises(InterruptedError):
            draw(model.with_adapter(files[1], 0.7))
    assert torch.equal(draw(model), expected)
    assert digest(model) == before


def test_two_branches_with_different_adapters_never_meet(model, files, draw):
    first, second = model.with_adapter(files[1], 0.7), model.with_adapter(files[2], 0.7)
    alone = [draw(branch) for branch in (first, second, model)]
    assert not torch.equal(alone[0], alone[1])
    for branch, expected in ((second, alone[1]), (first, alone[0]), (model, alone[2]), (first, alone[0])):
        assert torch.equal(draw(branch), expected)


def test_a_second_run_merges_nothing_again(model, files, draw, monkeypatch):
    import comfy.lora

    adapted = model.with_adapter(files[1], 0.7)
    first = draw(adapted)
    monkeypatch.setattr(comfy.lora, "calculate_weight", None)
    assert torch.equal(draw(adapted), first)


def test_training_after_a_merged_run_sees_the_plain_weights(model, files, draw):
    from flexiact_pack.nodes.host import memory

    before = digest(model)
    draw(model.with_adapter(files[1], 0.7))
    with memory.on_device_to_train(model.transformer, 0):
        assert digest(model) == before


def test_float8_weights_keep_the_adapter_beside_them(model, files, monkeypatch):
    from flexiact_pack.nodes import flexiact_sampling
    from flexiact_pack.nodes.host import progress

    said = []
    monkeypatch.setattr(progress, "say", said.append)
    adapted = model.with_adapter(files[1], 0.7)
    for layer in model.base.transformer.transformer_blocks:
        layer.attn1.to_q.weight.data = layer.attn1.to_q.weight.data.to(torch.float8_e4m3fn)
    assert flexiact_sampling.sampling_transformer(adapted, True) == (model.transformer, adapted.adapters)
    assert said == ["The base's weights are stored in float8, too coarse to take in RefAdapter: it runs beside them."]


@pytest.mark.parametrize("settings", [dict(step_cache="taylor"), dict(step_cache="first_block", threshold=0.95)])
def test_a_step_cache_leaves_nothing_behind(model, files, draw, settings):
    adapted = model.with_adapter(files[1], 0.7)
    exact = draw(adapted, steps=6)
    attributes = {name: set(vars(module)) for name, module in model.base.transformer.named_modules()}
    assert draw(adapted, accelerate(**settings), steps=6).shape == exact.shape
    assert torch.equal(draw(adapted, steps=6), exact)
    assert {name: set(vars(module)) for name, module in model.base.transformer.named_modules()} == attributes


def test_compiled_layers_of_the_host_give_the_same(model, files, draw, monkeypatch):
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile(function, backend="aot_eager"))
    adapted = model.with_adapter(files[1], 0.7)
    assert_close(draw(adapted, accelerate(compiled=True)), draw(adapted), atol=1e-4, rtol=0)


@pytest.mark.parametrize("step_cache", ["off", "first_block", "taylor"])
def test_the_sampler_asks_for_room_for_its_latent_frames(model, draw, monkeypatch, step_cache):
    from flexiact_pack.nodes.host import memory

    from flexiact_core.cogvideox.memory import transformer_bytes

    asked = []
    on_device = memory.on_device

    def asking(patcher, activation_bytes):
        asked.append((patcher, activation_bytes))
        return on_device(patcher, activation_bytes)

    monkeypatch.setattr(memory, "on_device", asking)
    acceleration = accelerate(step_cache=step_cache)
    draw(model, acceleration)
    # 9 frames are 3 latent ones of 8x8.
    expected = transformer_bytes(model.base, 3, 8, 8, batch=2, acceleration=acceleration.run)
    assert [needed for patcher, needed in asked if patcher not in (model.text_encoder, model.vae)] == [expected]


def test_a_hundred_runs_hold_no_more_memory_than_a_few(model, files, draw):
    """With adapters merged and separate, step caches on and off, and other seeds."""
    adapted = model.with_adapter(files[1], 0.7)
    settings = [dict(), dict(merge_adapter=False), dict(step_cache="taylor"), dict(step_cache="first_block")]

    def run(count):
        for index in range(count):
            draw(adapted, accelerate(**settings[index % len(settings)]), seed=index, steps=2)
        held_mb = held_memory_mb()
        return held_mb, sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    settled_mb, settled_tensors = run(20)
    after = [run(20) for _ in range(4)]
    assert [tensors for _, tensors in after] == [settled_tensors] * 4
    # The frames of one run take 0.4 MB.
    assert max(mb for mb, _ in after) - settled_mb < 1, (settled_mb, after)
