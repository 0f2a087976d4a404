"""AMG's nodes: loading, sampling, the release's folders, training, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

pack = pytest.importorskip("flexiact_pack.nodes", reason="There is no ComfyUI to import the nodes in: `make setup`.")

from flexiact_pack.nodes import amg_files, amg_parts, amg_sampling  # noqa: E402
from flexiact_pack.nodes.amg import AMGSampler, LoadAMG, LoadAMGDemoFolder  # noqa: E402
from flexiact_pack.nodes.amg_training import SaveAMGAdapter, TrainAMG  # noqa: E402

from flexiact_core.amg.loading import load_adapter, save_adapter, with_adapter  # noqa: E402
from flexiact_core.amg.model import Adapter, apply_adapter, lora_shapes  # noqa: E402
from flexiact_core.amg.rehearsal import LABEL, make_small_amg  # noqa: E402
from flexiact_core.errors import FileError, SettingError, ShapeError  # noqa: E402

SIDE = 32
SETTINGS = {
    "prompt": "a man waves", "negative_prompt": "", "width": SIDE, "height": SIDE, "num_frames": 16, "steps": 2,
    "cfg": 3.0, "seed": 3, "fps": 8.0, "fit": "cover", "long_prompt": "cut",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("running_node")


@pytest.fixture(scope="module")
def model():
    return amg_parts.to_amg_model(make_small_amg())


@pytest.fixture
def adapter(model):
    """What a training could have learned: every number random."""
    generator = torch.Generator().manual_seed(5)
    shapes = lora_shapes(model.amg.unet, 2)
    lora = {key: torch.randn(shape, generator=generator) * 0.3 for key, shape in shapes.items()}
    state = model.amg.unet.state_dict()
    conv_in = {key: state[key] + 0.1 for key in ("conv_in.weight", "conv_in.bias")}
    return Adapter(lora, conv_in, "mine")


@pytest.fixture
def avatar():
    frames = torch.zeros(4, 48, 64, 3)
    for index in range(4):
        frames[index, 10:40, 20 + index : 40 + index] = torch.tensor([0.8, 0.5, 0.2])
    return frames


def sample(model, avatar, positive=None, negative=None, **settings):
    with torch.inference_mode():
        return AMGSampler.execute(model, avatar, positive, negative, **SETTINGS | settings)


def load(model=LABEL, adapter="none", components="auto", zero_text="computed", dtype="auto", **sockets):
    with torch.inference_mode():
        return LoadAMG.execute(model, adapter, components, zero_text, dtype, **sockets).args[0]


def test_a_run_gives_the_avatars_frames_at_the_size_asked_for(model, avatar, said):
    frames, video = sample(model, avatar, fps=4.0).args
    assert frames.shape == (4, SIDE, SIDE, 3) and 0 <= frames.min() and frames.max() <= 1
    assert float(video.get_components().frame_rate) == 4
    assert said == [
        "4 frames of 32x32. The weights are random: the result is noise. Choose a trained model in Load AMG."
    ]


def test_one_seed_gives_the_same_frames_and_everything_else_others(model, avatar):
    first = sample(model, avatar).args[0]
    assert torch.equal(sample(model, avatar).args[0], first)
    for change in ({"seed": 4}, {"prompt": "snow"}, {"negative_prompt": "rain"}, {"cfg": 2.0}, {"steps": 3}):
        assert not torch.equal(sample(model, avatar, **change).args[0], first), change
    assert not torch.equal(sample(model, avatar.flip(2)).args[0], first)


def test_text_and_avatar_are_encoded_once_for_many_seeds(model, avatar, monkeypatch):
    fresh = amg_parts.to_amg_model(model.amg)
    calls = []
    for name, part in (("text", fresh.words.encoder), ("vae", fresh.pictures.vae.encoder)):
        original = part.forward
        monkeypatch.setattr(part, "forward", lambda *a, _f=original, _n=name, **k: (calls.append(_n), _f(*a, **k))[1])
    for seed in range(3):
        sample(fresh, avatar, seed=seed)
    assert calls.count("text") == 2 and calls.count("vae") == 1  # prompt and no words; one chunk of frames


def test_every_step_shows_a_preview(model, avatar, monkeypatch):
    shown = []
    monkeypatch.setattr(
        amg_sampling.progress.Progress, "step", lambda self, done, preview: shown.append((done, preview))
    )
    sample(model, avatar, steps=3)
    assert [done for done, _ in shown] == [1, 2, 3] and all(preview.shape == (4, 4, 3) for _, preview in shown)


def test_cancel_between_the_halves_ends_the_run_and_the_next_is_as_before(model, avatar, monkeypatch):
    import comfy.model_management as devices

    expected = sample(model, avatar).args[0]
    with monkeypatch.context() as patched:
        patched.setattr(amg_sampling.progress, "stop_if_cancelled", _cancel)
        with pytest.raises(devices.InterruptProcessingException):
            sample(model, avatar)
    assert torch.equal(sample(model, avatar).args[0], expected)


def _cancel():
    import comfy.model_management as devices

    raise devices.InterruptProcessingException()


def test_what_was_learned_goes_into_the_weights_and_out_again(model, adapter, avatar):
    plain = sample(model, avatar).args[0]
    learned = replace(model, amg=with_adapter(model.amg, adapter))
    found = sample(learned, avatar).args[0]
    merged = replace(model.amg, unet=apply_adapter(make_small_amg().unet, adapter))
    expected = sample(amg_parts.to_amg_model(merged), avatar).args[0]
    assert_close(found, expected, atol=1e-4, rtol=0)
    assert not torch.equal(found, plain)
    assert torch.equal(sample(model, avatar).args[0], plain), "another branch of the graph is untouched"


def test_a_video_is_read_at_the_speed_asked_for_and_frames_as_they_are(model):
    from fractions import Fraction

    from comfy_api.latest import InputImpl, Types

    frames = torch.linspace(0, 1, 24)[:, None, None, None].expand(24, 32, 32, 3)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=Fraction(24)))
    assert torch.equal(amg_sampling.read_frames(video, 8.0), frames[::3])
    assert torch.equal(amg_sampling.read_frames(frames, 8.0), frames)


def test_of_a_long_video_only_what_is_used_is_read(model, tmp_path, monkeypatch):
    from comfy_api.latest import InputImpl
    from videos import make_video

    video = InputImpl.VideoFromFile(str(make_video(tmp_path / "a.mp4", num_frames=70 * 4, fps=4)))
    packets = []
    monkeypatch.setattr(amg_sampling.progress, "stop_if_cancelled", lambda: packets.append(1))
    frames = amg_sampling.read_frames(video, 8.0, 16)
    assert frames.shape == (16, 48, 64, 3) and frames.is_floating_point() and len(packets) < 100
    # Halfway between two frames the later one is taken.
    expected = torch.tensor([0, *(index for index in range(1, 8) for _ in range(2)), 8]) * 4 / 255
    assert_close(frames[:, :10].mean((1, 2, 3)), expected, atol=0.02, rtol=0)
    with pytest.raises(SettingError, match="more than 60 seconds"):
        amg_sampling.read_frames(video, 8.0)


@pytest.mark.parametrize(("asked", "given"), [(2, 2), (0, 4), (100, 4)])
def test_as_many_frames_as_asked_for_and_no_more_than_there_are(model, avatar, asked, given):
    assert len(sample(model, avatar, num_frames=asked).args[0]) == given


def test_what_amg_did_not_learn_is_said(model, avatar, said):
    trained = replace(model, amg=replace(model.amg, name="amg"))
    sample(trained, avatar)
    sample(trained, avatar + 0.5)
    sample(trained, torch.zeros(16, 256, 256, 3), width=256, height=256, steps=1, cfg=1.0)
    assert said[0] == "4 frames of 32x32; AMG learned 16 of 256x256."
    assert said[1].endswith("the avatar does not stand on black, as AMG learned it: make the background #000000.")
    assert said[2] == "16 frames of 256x256."


def test_a_long_prompt_is_cut_and_said_or_read_in_chunks(model, said):
    cut, chunks = (amg_parts.encode_prompt(model, "word " * 40, long) for long in ("cut", "chunks"))
    assert cut.shape == (1, 77, 32) and chunks.shape == (1, 231, 32)
    assert said == ["The prompt has 200 tokens; the first 75 are read, as in the release. chunks reads all."]


def test_transparent_avatars_stand_on_black(model, avatar):
    transparent = torch.cat([torch.ones_like(avatar), torch.zeros(4, 48, 64, 1)], -1)
    assert torch.equal(sample(model, transparent).args[0], sample(model, torch.zeros_like(avatar)).args[0])


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (None, SettingError, "avatar: nothing came in. If it is Load 3D's recording, press record in the viewer first"),
        (torch.zeros(0, 32, 32, 3), ShapeError, "avatar: no frame in it"),
        (torch.full((2, 32, 32, 3), torch.nan), ShapeError, "avatar: some pixels are not numbers"),
        (torch.zeros(2, 32, 32, 2), ShapeError, "avatar: 2 channels found"),
    ],
)
def test_avatars_that_cannot_be_used_are_refused_before_the_unet_is_loaded(model, frames, error, message, monkeypatch):
    monkeypatch.setattr(amg_sampling, "denoise", lambda *_: pytest.fail("sampled"))
    with pytest.raises(error, match=message):
        sample(model, frames)


@pytest.mark.parametrize(("setting", "message"), [
    ({"width": 40}, "width 40: AMG works in steps of 16 pixels. Nearest: 32"),
    ({"height": 8}, "height 8: AMG works in steps of 16 pixels. Nearest: 16"),
    ({"steps": 0}, "steps 0: between 1 and 1000"),
    ({"fit": "stretch"}, "fit 'stretch': choose one of cover, release"),
    ({"long_prompt": "all"}, "long_prompt 'all': choose cut or chunks"),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused(model, avatar, setting, message):
    with pytest.raises(SettingError, match=message):
        sample(model, avatar, **setting)


def test_conditioning_goes_before_prompts_and_must_have_the_right_width(model, avatar):
    text = amg_parts.encode_prompt(model, SETTINGS["prompt"], "cut")
    expected = sample(model, avatar).args[0]
    assert torch.equal(sample(model, avatar, [[text, {}]], prompt="something else").args[0], expected)
    nothing = amg_parts.zero_text(model)
    assert torch.equal(sample(model, avatar, None, [[nothing, {}]], negative_prompt="x").args[0], expected)
    for width, kind in ((768, "Stable Diffusion 1.x"), (2048, "SDXL")):
        with pytest.raises(FileError, match=rf"positive: text of width {width} \({kind}\) found, 32 needed"):
            sample(model, avatar, [[torch.zeros(1, 77, width), {}]])


def test_a_model_without_text_encoder_or_vae_says_where_to_get_one(model, avatar):
    with pytest.raises(FileError, match="text encoder: this model has none. Choose 'components' in Load AMG"):
        sample(replace(model, words=None), avatar)
    with pytest.raises(FileError, match="VAE: this model has none. Choose 'components' in Load AMG"):
        sample(replace(model, pictures=None), avatar)


# Loading


@pytest.fixture
def in_folder(model_folders):
    """put(name) is a path in models/amg."""
    return lambda name: model_folders / "amg" / name


def save_unet(amg, folder: Path, channels: int = 8) -> Path:
    amg.unet.save_pretrained(folder / "unet")
    if channels == 4:
        file = next((folder / "unet").glob("*.safetensors"))
        from safetensors.torch import load_file, save_file

        state = load_file(file)
        state["conv_in.weight"] = state["conv_in.weight"][:, :4].clone()
        save_file(state, file)
    return folder


def save_parts(amg, folder: Path) -> Path:
    for name in ("text_encoder", "tokenizer", "vae"):
        getattr(amg, name).save_pretrained(folder / name)
    return folder


def test_lists_name_what_each_choice_can_use(model, adapter, in_folder):
    assert amg_files.find_models() == {} and load().amg.name == LABEL
    save_parts(model.amg, save_unet(model.amg, in_folder("ms-1.7b")))
    save_parts(model.amg, in_folder("sd21"))
    save_adapter(adapter, in_folder("adapters/mine.safetensors"))
    torch.save(
        {"state_dict": {"input_blocks.1.0.temopral_conv.conv1.0.weight": torch.zeros(1)}}, in_folder("non_ema.pth")
    )
    torch.save({"first_stage_model.x": torch.zeros(1)}, in_folder("v2-1.ckpt"))
    torch.save(torch.zeros(1, 77, 32), in_folder("zero_y.pt"))
    assert list(amg_files.find_models()) == ["ms-1.7b", "non_ema.pth"]
    assert list(amg_files.find_adapters()) == ["adapters/mine.safetensors"]
    assert sorted(amg_files.find_components()) == ["ms-1.7b", "sd21", "v2-1.ckpt"]
    assert list(amg_files.find_tensors()) == ["zero_y.pt"]
    assert LoadAMG.validate_inputs("ms-1.7b", "none", "auto", "computed") is True
    assert "'gone.pth' is not in" in LoadAMG.validate_inputs("gone.pth", "none", "auto", "computed")
    assert "'x' is not in" in LoadAMG.validate_inputs(LABEL, "none", "x", "computed")


def test_a_folder_brings_its_own_parts_and_a_zero_text_is_read(model, in_folder, avatar):
    save_parts(model.amg, save_unet(model.amg, in_folder("amg")))
    torch.save(amg_parts.zero_text(model), in_folder("zero_y.pt"))
    loaded = load("amg", zero_text="zero_y.pt")
    assert loaded.amg.zero_text.shape == (1, 77, 32)
    assert torch.equal(sample(loaded, avatar).args[0], sample(model, avatar).args[0])
    with pytest.raises(FileError, match="'gone' is not in"):
        load("gone")


def test_a_base_of_four_channels_is_refused_for_sampling_by_name_and_taken_with_an_adapter(
    model, adapter, in_folder, avatar
):
    save_parts(model.amg, save_unet(model.amg, in_folder("text-to-video-ms-1.7b"), channels=4))
    save_adapter(adapter, in_folder("adapters/mine.safetensors"))
    base = load("text-to-video-ms-1.7b")
    with pytest.raises(FileError, match=r"text-to-video-ms-1.7b: .*no avatar input \(conv_in has 4 channels\)"):
        sample(base, avatar)
    found = sample(load("text-to-video-ms-1.7b", adapter="adapters/mine.safetensors"), avatar).args[0]
    learned = replace(model, amg=with_adapter(model.amg, load_adapter(in_folder("adapters/mine.safetensors"))))
    assert_close(found, sample(learned, avatar).args[0], atol=1e-4, rtol=0)


def test_fp16_on_a_cpu_is_fp32_and_said(model, in_folder, said):
    save_unet(model.amg, in_folder("amg"))
    assert load("amg", dtype="fp16").amg.dtype == torch.float32
    assert said == ["A CPU does not compute well in fp16: AMG is loaded in fp32."]
    assert load("amg", dtype="bf16").amg.dtype == torch.bfloat16


# The release's folders


def test_a_demo_folder_is_sampled_as_it_is_once_for_each_caption(model, tmp_path):
    folder = tmp_path / "change_background"
    (folder / "hg_images_feature").mkdir(parents=True)
    for number in range(10, 22, 3):
        torch.save(torch.randn(1, 1, 4, 4, 4), folder / "hg_images_feature" / f"frame_{number:06d}.pth")
    (folder / "captions.json").write_text(json.dumps(["snow", "sea"]))
    clip, prompts, preview = LoadAMGDemoFolder.execute(str(folder), 0, 3, 4).args
    assert prompts == ["snow", "sea"] and preview.shape == (4, 4, 4, 3)
    frames = sample(model, clip, width=256, height=256).args[0]
    assert frames.shape == (4, 32, 32, 3), "encoded clips have their own size"
    assert len(sample(model, clip, num_frames=2).args[0]) == 2


def test_pictures_of_a_demo_are_fitted_as_the_release_fits_them(model, tmp_path):
    import numpy as np
    from PIL import Image

    from flexiact_core.amg.pictures import fit_avatar

    pixels = np.random.default_rng(0).integers(0, 255, (2, 72, 128, 3), np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"frame_{number:06d}.png")
    clip, prompts, _ = LoadAMGDemoFolder.execute(str(tmp_path), 0, 1, 2).args
    assert prompts == [""]
    settings = amg_sampling.Settings(**SETTINGS)
    frames, _ = amg_sampling.read_avatar(model, clip, settings)
    assert torch.equal(frames, fit_avatar(torch.from_numpy(pixels) / 255, SIDE, SIDE, "release"))


# Training


@pytest.fixture
def data(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("images_feature", "gh_images_feature", "captions_y"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(8):
            shape = (1, 77, 32) if name == "captions_y" else (1, 1, 4, 4, 4)
            torch.save(torch.randn(shape, generator=generator), tmp_path / "data" / name / f"frame_{number:06d}.pth")
    return tmp_path / "data"


PLAN = {
    "name": "mine", "steps": 3, "learning_rate": 1e-2, "batch_size": 1, "checkpoint_every": 2, "resume": True,
    "seed": 0, "gradient_checkpointing": "auto",
}  # fmt: skip


def train(model, data, **settings):
    fixed = {"rank": 2, "num_frames": 2, "size": 16, "caption_dropout": 0.0, "skip": 0}
    with torch.inference_mode():
        return TrainAMG.execute(model, str(data), **fixed | PLAN | settings).args


def test_a_training_saves_an_adapter_that_load_amg_puts_on_its_base(model, data, in_folder, avatar):
    learned, curve = train(model, data)
    assert learned.amg.reads_avatar and curve.shape[-1] == 3
    file = in_folder("adapters/mine.safetensors")
    assert_close(load_adapter(file).tensors(), learned.amg.adapter.tensors(), atol=1e-3, rtol=1e-3)
    assert not torch.equal(sample(learned, avatar).args[0], sample(model, avatar).args[0])
    assert list(amg_files.find_adapters()) == ["adapters/mine.safetensors"]
    assert amg_files.find_models() == {}, "a checkpoint of a training is no model"


def test_a_training_that_was_stopped_goes_on_where_it_was(model, data, in_folder):
    whole = train(model, data)[0].amg.adapter.tensors()
    train(model, data, name="parts", steps=2)
    assert TrainAMG.fingerprint_inputs(name="parts", steps=3, resume=True) != ""
    parts = train(model, data, name="parts")[0].amg.adapter.tensors()
    assert all(torch.equal(parts[key], whole[key]) for key in whole)


def test_training_leaves_the_model_as_it_is(model, data, in_folder, avatar):
    before = sample(model, avatar).args[0]
    train(model, data)
    assert torch.equal(sample(model, avatar).args[0], before)


def test_pairs_are_trained_on_with_words_and_pictures_of_the_model(model, tmp_path, in_folder):
    from flexiact_core.video_files import write_preview

    for kind in ("video", "avatar"):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        write_preview(tmp_path / "pairs" / kind / "a.mp4", torch.rand(4, 32, 32, 3), 8)
    (tmp_path / "pairs" / "video" / "a.txt").write_text("a man")
    learned, _ = train(model, tmp_path / "pairs", steps=1, caption_dropout=0.5)
    assert learned.amg.adapter.lora
    assert len(list(in_folder("training/clips").iterdir())) == 1
    with pytest.raises(SettingError, match="width 40: AMG works in steps of 16 pixels"):
        train(model, tmp_path / "pairs", size=40)


def test_captions_of_another_width_are_refused(model, data, in_folder):
    for file in (data / "captions_y").iterdir():
        torch.save(torch.zeros(1, 77, 768), file)
    with pytest.raises(FileError, match="captions: text of width 768"):
        train(model, data)


def test_a_folder_that_cannot_be_learned_from_is_refused_before_the_model_is_loaded(tmp_path):
    with pytest.raises(FileError, match="no video/NAME.mp4 in it"):
        TrainAMG.check_lazy_status(str(tmp_path), 3, 1e-6, 1)
    with pytest.raises(SettingError, match="The method uses 1e-06"):
        TrainAMG.check_lazy_status(str(tmp_path), 3, 0.0, 1)


def test_an_adapter_is_saved_apart_from_its_base(model, adapter, in_folder):
    learned = replace(model, amg=with_adapter(model.amg, adapter))
    (path,) = SaveAMGAdapter.execute(learned, "mine").args
    assert Path(path) == in_folder("adapters/mine.safetensors")
    assert SaveAMGAdapter.execute(learned, "mine").args == (path,), "the same is written in its own place"
    other = replace(learned, amg=with_adapter(model.amg, Adapter(adapter.lora, {}, "other")))
    assert SaveAMGAdapter.execute(other, "mine").args[0].endswith("mine_2.safetensors")
