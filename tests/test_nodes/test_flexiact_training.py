"""FlexiAct's training nodes, called as ComfyUI calls them, on a small random base."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from small_models import make_base
from torch.testing import assert_close
from videos import make_video

training = pytest.importorskip("flexiact_pack.nodes.flexiact_training", reason="needs ComfyUI: run `make test`")

from flexiact_core.errors import FileError  # noqa: E402
from flexiact_core.flexiact.fae import load_fae  # noqa: E402
from flexiact_core.video_files import read_video  # noqa: E402

RECORDED = Path(__file__).parents[1] / "recorded" / "0.2.0" / "training"
SETTINGS = {
    "name": "act", "steps": 5, "learning_rate": 0.01, "batch_size": 1, "checkpoint_every": 2, "resume": True,
    "seed": 3, "gradient_checkpointing": "off",
}  # fmt: skip
OF_FAE = {"caption": "a bar moves", "crops": 2, "sample_every": 0, "sample_cfg": 1.0, "released_format": False}

pytestmark = pytest.mark.usefixtures("model_folders", "running_node")


@pytest.fixture(scope="module")
def reference():
    """17 frames at 8 per second: noise that grows brighter."""
    frames = torch.rand(17, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    return frames * torch.linspace(0.2, 1, 17)[:, None, None, None]


@pytest.fixture
def few_sample_steps(monkeypatch):
    monkeypatch.setattr("flexiact_core.flexiact.samples.SAMPLE_STEPS", 2)


@torch.inference_mode()
def learn(model, reference, **changes):
    """fae, its tokens, and what the outputs loss_curve and samples hold."""
    ((fae, strength),), curve, frames = training.TrainFAE.execute(model, reference, **SETTINGS | OF_FAE | changes).args
    assert strength == 1.0
    return fae, curve, frames


def test_an_action_is_learned_and_saved_with_what_it_was_learned_from(small_model, reference, model_folders, said):
    fae, curve, frames = learn(small_model, reference, released_format=True)
    saved = model_folders / "flexiact" / "fae" / "act.safetensors"
    assert said[-1] == "Saved as act.safetensors in models/flexiact/fae."
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    assert {key: metadata[key] for key in ("action", "steps", "seed", "caption", "batch_size")} == {
        "action": "act", "steps": "5", "seed": "3", "caption": "a bar moves", "batch_size": "1",
    }  # fmt: skip
    stacked = torch.stack([value for _, value in sorted(load_file(saved).items())])
    assert_close(stacked.reshape(fae.tokens.shape), fae.tokens)
    assert saved.with_suffix(".pt").is_file() and saved.with_suffix(".mp4").is_file()
    assert curve.ndim == 4
    assert_close(frames, reference, atol=0.05, rtol=0)


@pytest.mark.usefixtures("few_sample_steps")
def test_sample_videos_are_drawn_on_the_way_and_at_the_end_and_change_nothing_that_is_learned(
    small_model, reference, monkeypatch
):
    from flexiact_pack.nodes.host import progress

    plain, _, clip = learn(small_model, reference)
    shown, drawn = [], []
    show, draw = progress.TrainingProgress.show_sample, training.SampleVideos.draw
    monkeypatch.setattr(progress.TrainingProgress, "show_sample", lambda self, frames: shown.append(show(self, frames)))
    monkeypatch.setattr(training.SampleVideos, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    sampled, _, frames = learn(small_model, reference, name="sampled", sample_every=2)
    # After steps 2 and 4, shown while it runs, and of what was learned in the end.
    assert (len(shown), len(drawn)) == (2, 3)
    assert torch.equal(sampled.tokens, plain.tokens)
    assert frames is drawn[-1] and frames.shape == clip.shape and not torch.equal(frames, clip)
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.usefixtures("few_sample_steps")
def test_a_sample_is_what_the_sampler_makes_of_the_picture_with_the_same_seed(small_model, reference):
    from flexiact_pack.nodes.flexiact import FlexiActSampler

    picture = torch.rand(1, 80, 100, 3, generator=torch.Generator().manual_seed(2))
    fae, _, frames = learn(small_model, reference, sample_every=5, sample_image=picture)
    sampled = FlexiActSampler.execute(
        small_model, picture, "a bar moves", "", width=64, height=64, num_frames=17, steps=2, cfg=1.0, seed=3,
        bias_strength=1.0, hold_until=800, off_below=700, scheduler="DPM", weighting="paper", fae=((fae, 1.0),),
    ).args[0]  # fmt: skip
    assert_close(frames, sampled, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("few_sample_steps")
def test_each_picture_of_a_list_becomes_a_video_on_the_way_and_at_the_end(
    small_model, reference, tmp_path, monkeypatch
):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    (tmp_path / "input" / "pictures").mkdir(parents=True)
    for name in ("cat", "dog"):
        Image.new("RGB", (80, 60), "red").save(tmp_path / "input" / "pictures" / f"{name}.png")
    listed = "pictures/cat.png,A cat jumps\npictures/dog.png,A dog jumps\n"
    (tmp_path / "input" / "val_image.csv").write_text(listed)
    plain, _, _ = learn(small_model, reference)
    sampled, _, _ = learn(small_model, reference, name="sampled", sample_every=2, sample_list="val_image.csv")
    assert torch.equal(sampled.tokens, plain.tokens)
    kept = sorted((tmp_path / "output" / "flexiact").rglob("*.mp4"))
    assert [file.parent.name + "/" + file.name for file in kept] == [
        f"step_{step:06d}/{picture}.mp4" for step in (2, 4, 5) for picture in ("01_cat", "02_dog")
    ]
    assert all(len(read_video(file, 8)) == len(reference) for file in kept)
    with pytest.raises(FileError, match="only files in ComfyUI's input folder"):
        training.TrainFAE.check_lazy_status(5, 0.1, 1, sample_list="../secret.csv")


def test_cancel_keeps_what_was_learned_and_the_same_settings_go_on_from_there(
    small_model, reference, monkeypatch, said
):
    from comfy.model_management import InterruptProcessingException
    from flexiact_pack.nodes.host import progress

    whole, _, _ = learn(small_model, reference, name="whole")

    def cancel(self, done, loss):
        if done == 3:
            raise InterruptProcessingException

    assert training.TrainFAE.fingerprint_inputs(name="parts", steps=5, resume=True) == ""
    with monkeypatch.context() as patch:
        patch.setattr(progress.TrainingProgress, "step", cancel)
        part, _, _ = learn(small_model, reference, name="parts")
    assert part.metadata["steps"] == 3
    assert "Training stopped at step 3 of 5; what was learned is kept." in said
    assert training.TrainFAE.fingerprint_inputs(name="parts", steps=5, resume=True) != ""
    parts, _, _ = learn(small_model, reference, name="parts")
    assert torch.equal(parts.tokens, whole.tokens)
    assert training.TrainFAE.fingerprint_inputs(name="parts", steps=5, resume=True) == ""


def test_another_training_of_the_same_name_is_saved_beside_the_first(small_model, reference, model_folders):
    learn(small_model, reference, steps=1)
    first = (model_folders / "flexiact" / "fae" / "act.safetensors").read_bytes()
    learn(small_model, reference, steps=1, seed=4)
    assert (model_folders / "flexiact" / "fae" / "act.safetensors").read_bytes() == first
    assert (model_folders / "flexiact" / "fae" / "act_2.safetensors").is_file()


@pytest.fixture
def clip_list(model_folders, monkeypatch):
    """A CSV of two videos, in ComfyUI's input folder."""
    import folder_paths

    folder = model_folders.parent / "input"
    folder.mkdir()
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(folder))
    with (folder / "clips.csv").open("w", newline="") as lines:
        for number in range(2):
            make_video(folder / f"{number}.mp4", num_frames=40, fps=20)
            csv.writer(lines).writerow([f"{number}.mp4", 0, 40, 20, f"thing {number} moves"])
    return "clips.csv"


def test_an_adapter_is_learned_saved_and_applied(small_model, clip_list, model_folders):
    from flexiact_core.flexiact.refadapter import load_refadapter

    with torch.inference_mode():
        model, curve = training.TrainRefAdapter.execute(small_model, clip_list, 4, **SETTINGS | {"steps": 2}).args
    ((adapter, weight),) = model.adapters
    assert (weight, adapter.rank, small_model.adapters) == (1.0, 4, ())
    saved = load_refadapter(model_folders / "flexiact" / "refadapter" / "act.safetensors")
    for name, value in adapter.tensors.items():
        assert_close(saved.tensors[name], value)
    assert curve.ndim == 4


def test_listed_clips_are_encoded_once(small_model, clip_list, monkeypatch):
    from flexiact_core.cogvideox import encodings

    training.TrainRefAdapter.execute(small_model, clip_list, 4, **SETTINGS | {"steps": 1})
    monkeypatch.setattr(encodings, "encode_pixels", lambda *_: pytest.fail("encoded again"))
    training.TrainRefAdapter.execute(small_model, clip_list, 4, **SETTINGS | {"steps": 2})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": 0}, "steps 0"), ({"learning_rate": 0.0}, "learning_rate 0"), ({"batch_size": 0}, "batch_size 0")],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_before_a_model_is_loaded(settings, message):
    from flexiact_core.errors import SettingError

    asked = {key: SETTINGS[key] for key in ("steps", "learning_rate", "batch_size")} | settings
    with pytest.raises(SettingError, match=message):
        training.TrainFAE.check_lazy_status(**asked, model=None, reference=None)


def test_with_good_settings_model_and_reference_are_asked_for():
    asked = {key: SETTINGS[key] for key in ("steps", "learning_rate", "batch_size")}
    needed = training.TrainFAE.check_lazy_status(**asked, model=None, reference=None, caption="", sample_image=None)
    assert needed == ["model", "reference", "sample_image"]


@pytest.fixture
def recorded_model(tmp_path):
    """The base that trainings of 0.2.0 were recorded on: small_models', with positions as that release spaced them."""
    from flexiact_pack.nodes.cogvideox import to_base_model
    from flexiact_pack.nodes.host import memory

    from flexiact_core.cogvideox.loading import load_base

    folder = make_base(tmp_path / "base", text_tokens=8)
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rotary_spacing": "scaled_stop"}))
    with memory.normal_tensors():
        return to_base_model(load_base(folder, folder, torch.float32))


@pytest.fixture
def recorded_clips():
    """The clips of the recorded training, drawn in the order that they were drawn in."""
    from flexiact_pack.nodes.sockets import ActionClips

    from flexiact_core.cogvideox.encodings import Clips
    from flexiact_core.cogvideox.model import Posterior

    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(shape, generator=generator)

    video = Posterior(rand(2, 3, 16, 8, 8), rand(2, 3, 16, 8, 8))
    image = Posterior(rand(2, 1, 16, 8, 8), rand(2, 1, 16, 8, 8))
    clips = Clips(video, image, rand(1, 8, 32), rand(1, 8, 32), 0.7)
    return ActionClips(clips, "a cat jumps", rand(9, 64, 64, 3), "digest of the clips")


def test_a_training_that_release_0_2_0_left_at_step_3_goes_on_as_that_release_would_have(
    recorded_model, recorded_clips, model_folders, monkeypatch
):
    from flexiact_pack.nodes.host import progress

    steps = []
    monkeypatch.setattr(progress.TrainingProgress, "step", lambda self, done, loss: steps.append(done))
    shutil.copytree(RECORDED, model_folders / "flexiact" / "training", dirs_exist_ok=True)
    fae, _, _ = learn(recorded_model, recorded_clips, steps=6, seed=5, checkpoint_every=3, caption="", crops=1)
    assert steps == [4, 5, 6]
    expected = load_fae(RECORDED / "act.safetensors")
    assert_close(fae.tokens, expected.tokens, atol=1e-5, rtol=1e-4)
    changed = {key: value for key, value in expected.metadata.items() if fae.metadata.get(key) != value}
    assert changed.keys() <= {"pack_version", "steps", "learning_rate", "batch_size", "seed"}


def test_an_adapter_that_release_0_2_0_left_at_step_3_goes_on_as_that_release_would_have(recorded_model):
    from flexiact_core.cogvideox.encodings import TrainingClip
    from flexiact_core.cogvideox.model import Posterior
    from flexiact_core.cogvideox.sampling import make_scheduler
    from flexiact_core.flexiact.fit import fit_refadapter
    from flexiact_core.training import Course, load_state

    def draw(generator):
        def rand(*shape):
            return torch.rand(shape, generator=generator)

        video = Posterior(rand(1, 3, 16, 8, 8), rand(1, 3, 16, 8, 8))
        return TrainingClip(video, Posterior(rand(1, 1, 16, 8, 8), rand(1, 1, 16, 8, 8)), rand(1, 8, 32), 0.7)

    resumed, metadata = load_state(RECORDED / "refadapter_3.safetensors")
    assert (resumed.steps_done, metadata["steps_done"]) == (3, "3")
    state = fit_refadapter(
        recorded_model.base.transformer, make_scheduler(recorded_model.base.scheduler_config, "DPM"), draw,
        Course(6, 0.01, 5, torch.device("cpu"), resume=resumed), rank=2,
    )  # fmt: skip
    expected, _ = load_state(RECORDED / "refadapter_6.safetensors")
    assert_close(state.losses, expected.losses, atol=1e-5, rtol=1e-4)
    assert_close(state.parameters, dict(expected.parameters), atol=1e-5, rtol=1e-3)
