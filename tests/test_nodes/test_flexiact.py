"""The sampling nodes, called as ComfyUI calls them, on a small random base."""

import dataclasses

import numpy as np
import pytest
import torch

flexiact = pytest.importorskip("flexiact_pack.nodes.flexiact", reason="needs ComfyUI: run `make test`")

from small_models import make_base, make_fae, make_refadapter  # noqa: E402

from flexiact_core.cogvideox import model as cogvideox  # noqa: E402
from flexiact_core.errors import FileError, SettingError, ShapeError  # noqa: E402

SETTINGS = {
    "prompt": "a cat jumps", "negative_prompt": "", "width": 64, "height": 64, "num_frames": 9, "steps": 2, "cfg": 6.0,
    "bias_strength": 1.0, "hold_until": 800, "off_below": 700, "seed": 3, "scheduler": "DPM", "weighting": "paper",
}  # fmt: skip


@pytest.fixture(autouse=True)
def running_node():
    """What ComfyUI sets up around a node, so that its progress reports have an address."""
    from comfy_execution.graph import DynamicPrompt
    from comfy_execution.progress import reset_progress_state
    from comfy_execution.utils import CurrentNodeContext

    reset_progress_state("prompt", DynamicPrompt({"node": {"class_type": "FlexiActSampler", "inputs": {}}}))
    with CurrentNodeContext("prompt", "node"):
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model folder with a base, two actions and two adapters, known to ComfyUI."""
    import folder_paths
    from flexiact_pack.nodes import MODEL_FOLDERS

    root = tmp_path_factory.mktemp("models")
    make_base(root / "CogVideo" / "small")
    for name, seed in (("one", 5), ("two", 6)):
        make_fae(root / "flexiact" / "fae" / f"{name}.safetensors", seed=seed)
        make_refadapter(root / "flexiact" / "refadapter" / f"{name}.pt", seed=seed + 10)
    make_fae(root / "flexiact" / "fae" / "other_base.pt", dim=64)
    make_refadapter(root / "flexiact" / "refadapter" / "other_base.pt", layers=3)
    for kind in MODEL_FOLDERS:
        folder_paths.add_model_folder_path(kind.name, str(root / kind.name), is_default=True)
    return root


@pytest.fixture(scope="module")
def model(files):
    from flexiact_pack.nodes.cogvideox import LoadCogVideoXI2V

    with torch.inference_mode():
        return LoadCogVideoXI2V.execute("small", "auto", "fp32").args[0]


@pytest.fixture
def image():
    return torch.rand(1, 70, 90, 3, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def sample(model, image, **changes):
    output = flexiact.FlexiActSampler.execute(model, image, **SETTINGS | changes)
    return output.args[0]


def fae(name, strength=1.0, before=()):
    return flexiact.LoadFAEEmbedding.execute(f"fae/{name}", strength, before).args[0]


def with_adapter(model, name, weight=0.7):
    return flexiact.ApplyRefAdapter.execute(model, f"refadapter/{name}", weight).args[0]


def test_as_many_frames_come_out_as_were_asked_for_in_the_size_asked_for(model, image):
    for num_frames in (1, 9, 17):
        assert sample(model, image, num_frames=num_frames).shape == (num_frames, 64, 64, 3)


def test_the_video_output_holds_the_same_frames_at_8_per_second(model, image):
    frames, video, _ = flexiact.FlexiActSampler.execute(model, image, **SETTINGS).args
    components = video.get_components()
    assert components.frame_rate == 8
    assert torch.equal(components.images, frames)


@torch.inference_mode()
def test_the_attention_picture_is_drawn_on_request_and_changes_no_frame(model, image):
    from comfy_execution.graph_utils import ExecutionBlocker

    action = fae("one.safetensors")
    frames, _, silent = flexiact.FlexiActSampler.execute(model, image, **SETTINGS, fae=action).args
    assert isinstance(silent, ExecutionBlocker) and silent.message is None
    drawn, _, picture = flexiact.FlexiActSampler.execute(model, image, **SETTINGS, fae=action, draw_attention=True).args
    assert torch.equal(drawn, frames)
    assert picture.shape == (1, 400, 640, 3) and picture.max() <= 1
    bias = SETTINGS | {"bias_strength": 3.0}
    *_, biased = flexiact.FlexiActSampler.execute(model, image, **bias, fae=action, draw_attention=True).args
    assert not torch.equal(biased, picture)


def test_one_seed_fixes_everything_and_another_changes_it(model, image):
    action = fae("one.safetensors")
    first = sample(model, image, fae=action)
    torch.manual_seed(123)
    assert torch.equal(first, sample(model, image, fae=action))
    assert not torch.equal(first, sample(model, image, fae=action, seed=4))


def test_without_an_action_and_at_strength_0_it_is_plain_image_to_video(model, image):
    plain = sample(model, image)
    assert torch.equal(plain, sample(model, image, fae=fae("one.safetensors", 0.0)))
    assert not torch.equal(plain, sample(model, image, fae=fae("one.safetensors", 1.0)))


def test_chained_actions_keep_their_own_strengths(model, image):
    both = fae("two.safetensors", 0.5, before=fae("one.safetensors", 2.0))
    assert [(action.name, strength) for action, strength in both] == [("one", 2.0), ("two", 0.5)]
    only_two = sample(model, image, fae=fae("two.safetensors", 0.5))
    assert torch.equal(only_two, sample(model, image, fae=fae("two.safetensors", 0.5, fae("one.safetensors", 0.0))))
    assert not torch.equal(only_two, sample(model, image, fae=both))


def test_applying_an_adapter_leaves_the_model_and_other_branches_as_they_are(model, image):
    plain = sample(model, image)
    one, two = with_adapter(model, "one.pt"), with_adapter(model, "two.pt")
    first = sample(one, image)
    assert not torch.equal(first, sample(two, image))
    assert torch.equal(first, sample(one, image))
    assert torch.equal(plain, sample(model, image))
    assert model.adapters == ()


def test_applying_twice_replaces_nothing(model, image):
    one = with_adapter(model, "one.pt")
    both = with_adapter(one, "two.pt", 0.4)
    assert [(adapter.name, weight) for adapter, weight in both.adapters] == [("one", 0.7), ("two", 0.4)]
    assert not torch.equal(sample(one, image), sample(both, image))
    twice = with_adapter(with_adapter(model, "one.pt", 0.3), "one.pt", 0.4)
    torch.testing.assert_close(sample(twice, image), sample(one, image), rtol=1e-5, atol=0.001)


def test_another_seed_or_number_of_steps_does_not_encode_again(model, image, monkeypatch):
    sample(model, image)

    def never(*_, **__):
        raise AssertionError("encoded again")

    monkeypatch.setattr(cogvideox, "encode_prompt", never)
    monkeypatch.setattr(cogvideox, "encode_pixels", never)
    sample(model, image, seed=99)
    sample(with_adapter(model, "one.pt"), image, steps=3)
    with pytest.raises(AssertionError, match="encoded again"):
        sample(model, image, prompt="another prompt")


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.rand(64, 64, 3), "image: .*3 dimensions found"),
        (torch.rand(4, 64, 64, 3), "one picture expected, 4 found.*ImageFromBatch"),
        (torch.rand(1, 1, 1, 3), "1x1 pixels is too small"),
        (torch.full((1, 64, 64, 3), float("nan")), "not numbers"),
        (torch.rand(1, 64, 64, 2), "2 channels found"),
    ],
    ids=["rank", "batch", "1x1", "NaN", "two channels"],
)
def test_a_picture_that_cannot_be_used_is_refused_before_anything_runs(model, image, picture, message, monkeypatch):
    from flexiact_pack.nodes.host import memory

    monkeypatch.setattr(memory, "on_device", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ShapeError, match=message):
        sample(model, picture, seed=1000)
    monkeypatch.undo()
    sample(model, image)


@pytest.mark.parametrize("shape", [(1, 64, 64, 4), (1, 3000, 5000, 3), (1, 16, 400, 3)], ids=str)
def test_any_other_picture_is_fitted(model, shape):
    assert sample(model, torch.rand(shape), num_frames=1, steps=1).shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 50}, "num_frames 50.*Nearest: 49"),
        ({"num_frames": 13}, "num_frames 13.*Nearest: (9|17)"),
        ({"width": 72}, "width 72.*Nearest: (64|80)"),
        ({"height": 100}, "height 100.*Nearest: 96"),
        ({"cfg": 0.3}, "cfg 0.3: 0 is the base.s own"),
        ({"hold_until": 700}, "hold_until 700 must lie above off_below 700"),
        ({"hold_until": 600}, "hold_until 600 must lie above off_below 700"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_work_is_refused_before_a_model_is_loaded(settings, message):
    inputs = {key: value for key, value in SETTINGS.items() if key != "prompt"} | settings
    # ComfyUI asks this before it computes the inputs that are lazy, the model among them.
    with pytest.raises(SettingError, match=message):
        flexiact.FlexiActSampler.check_lazy_status(**inputs, model=None, image=None)


def test_with_good_settings_model_image_and_action_are_asked_for():
    needed = flexiact.FlexiActSampler.check_lazy_status(**SETTINGS, model=None, image=None, fae=None)
    assert set(needed) == {"model", "image", "fae"}


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("scheduler", ["DPM", "DDIM"])
@pytest.mark.parametrize("cfg", [1.0, 6.0])
def test_few_steps_and_no_guidance_give_finite_frames(model, image, steps, scheduler, cfg):
    frames = sample(model, image, steps=steps, scheduler=scheduler, cfg=cfg, fae=fae("one.safetensors"))
    assert torch.isfinite(frames).all()


def test_an_empty_prompt_is_allowed_and_a_long_one_is_cut_and_that_is_said(model, image, monkeypatch):
    from flexiact_pack.nodes.host import progress

    said = []
    monkeypatch.setattr(progress, "say", said.append)
    sample(model, image, prompt="")
    assert said == []
    sample(model, image, prompt="long " * 2000)
    length = model.base.transformer.config.max_text_seq_length
    assert len(said) == 1 and f"reads the first {length}" in said[0]


def test_files_of_another_base_are_refused_with_what_they_are_for(model, image):
    with pytest.raises(FileError, match="other_base.*3 layers"):
        with_adapter(model, "other_base.pt")
    with pytest.raises(FileError, match="other_base.*width 64"):
        sample(model, image, fae=fae("other_base.pt"))
    sample(model, image)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_cancel_takes_effect_at_any_step_and_the_next_run_works(model, image, monkeypatch, stop_at):
    import comfy.model_management as memory
    from flexiact_pack.nodes.host import progress

    expected = sample(model, image, steps=3, seed=8)
    steps = []

    def press_cancel(self, done, preview=None):
        steps.append(done)
        if done == stop_at:
            memory.interrupt_current_processing()
        memory.throw_exception_if_processing_interrupted()

    monkeypatch.setattr(progress.Progress, "step", press_cancel)
    with pytest.raises(memory.InterruptProcessingException):
        sample(model, image, steps=3, seed=8)
    assert steps == list(range(1, stop_at + 1))
    monkeypatch.undo()
    assert torch.equal(sample(model, image, steps=3, seed=8), expected)


def test_every_step_reports_progress_with_a_preview_of_the_video(model, image, monkeypatch):
    from flexiact_pack.nodes.host import progress

    seen = []
    monkeypatch.setattr(progress.Progress, "step", lambda self, done, preview=None: seen.append((done, preview)))
    sample(model, image, steps=3)
    assert [done for done, _ in seen] == [1, 2, 3]
    for _, preview in seen:
        assert preview.shape == (8, 8, 3)
        assert 0 <= preview.min() and preview.max() <= 1
    assert np.ptp(seen[-1][1].numpy()) > 0


AUTO = {"width": 0, "height": 0, "num_frames": 0, "steps": 0, "cfg": 0.0}


def test_0_is_the_bases_own_size_length_steps_and_guidance(model, image):
    # The small random base says 64x64 and 17 frames by its own sizes, and the rest in its config.
    own = dataclasses.replace(model, base=dataclasses.replace(model.base, transformer=saying(model, steps=2, cfg=1.0)))
    explicit = {"width": 64, "height": 64, "num_frames": 17, "steps": 2, "cfg": 1.0}
    assert torch.equal(sample(own, image, **AUTO), sample(model, image, **explicit))


def test_the_weighting_auto_is_the_bases_own_curve(model, image):
    own = dataclasses.replace(
        model,
        base=dataclasses.replace(
            model.base, transformer=saying(model, motion_bias={"strength": 2.0, "hold_until": 500, "off_below": 0})
        ),
    )
    action = fae("one.safetensors")
    set_by_hand = sample(model, image, fae=action, bias_strength=2.0, hold_until=500, off_below=0)
    assert torch.equal(sample(own, image, fae=action, weighting="auto"), set_by_hand)
    assert torch.equal(sample(model, image, fae=action, weighting="auto"), sample(model, image, fae=action))


def saying(model, motion_bias=None, **run):
    """The model's transformer with a config that says more of itself."""
    from flexiact_core.modules import share_weights

    twin = share_weights(model.base.transformer)
    twin.register_to_config(run=run, motion_bias=motion_bias)
    return twin
