"""Pose Transfer without a server: a small random base, and what is refused before it is loaded."""

import dataclasses

import pytest
import torch
from small_models_1_5 import make_base_1_5

nodes = pytest.importorskip("flexiact_pack.nodes", reason="There is no ComfyUI to import the nodes in: `make setup`.")

ASKED = {
    "prompt": "a man dances", "negative_prompt": "", "width": 48, "height": 64, "num_frames": 13, "steps": 2,
    "cfg": 3.0, "seed": 1, "scheduler": "DPM", "pose_strength": 1.0, "pose_start": 0.0, "pose_end": 100.0,
    "frame_rule": "aligned", "image_scale": "release", "pose_colours": "dynamictrl",
}  # fmt: skip


def poses(count=13, x=20):
    person = {"pose_keypoints_2d": [n for j in range(18) for n in (x + j % 5, 10 + 2 * j, 1.0)]}
    return [{"people": [person], "canvas_width": 48, "canvas_height": 64}] * count


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_base_1_5(tmp_path_factory.mktemp("base") / "DynamiCtrl", poses=True)


@pytest.fixture
def model(folder):
    import comfy.model_management
    from flexiact_pack.nodes.cogvideox import to_base_model
    from flexiact_pack.nodes.host import memory

    from flexiact_core.cogvideox.loading import load_base

    with memory.normal_tensors():
        yield to_base_model(load_base(folder, folder, torch.float32))
    comfy.model_management.unload_all_models()


@pytest.fixture
def image():
    return torch.rand(1, 80, 60, 3, generator=torch.Generator().manual_seed(0))


def run(model, image, **changes):
    asked = ASKED | {"poses": poses()} | changes
    return nodes.DynamiCtrlSampler.execute(
        model=model, image=image, **{k: v for k, v in asked.items() if v is not None}
    ).args


def status(**changes):
    lazy = {"model": None, "image": None, "poses": None}
    return nodes.DynamiCtrlSampler.check_lazy_status(**ASKED | lazy | changes)


@pytest.mark.parametrize(("rule", "num_frames"), [("aligned", 13), ("release", 13), ("padded", 9)])
def test_frames_video_and_drawn_poses_have_the_number_asked_for(running_node, model, image, rule, num_frames):
    frames, video, drawn = run(model, image, frame_rule=rule, num_frames=num_frames)
    assert frames.shape == (num_frames, 64, 48, 3) and drawn.shape == (num_frames, 64, 48, 3)
    components = video.get_components()
    assert components.frame_rate == 16 and components.images.shape[0] == num_frames and components.audio is None
    assert 0 <= frames.min() and frames.max() <= 1 and drawn.any()


def test_rules_keep_other_frames_of_the_same_run(running_node, model, image):
    aligned, _, _ = run(model, image)
    released, _, _ = run(model, image, frame_rule="release")
    torch.testing.assert_close(aligned[:-3], released[3:])


def test_the_same_twice_and_poses_seed_and_strength_matter(running_node, model, image):
    first = run(model, image)[0]
    assert torch.equal(run(model, image)[0], first)
    for change in ({"seed": 2}, {"poses": poses(x=30)}, {"pose_strength": 0.4}, {"pose_end": 50.0}):
        assert not torch.allclose(run(model, image, **change)[0], first, atol=1e-4), change


def test_a_drawn_video_is_taken_in_place_of_joints(running_node, model, image):
    joints, _, drawn = run(model, image)
    torch.testing.assert_close(run(model, image, poses=None, pose_video=drawn)[0], joints)
    other = run(model, image, poses=None, pose_video=drawn.flip(-1), pose_colours="openpose")[0]
    torch.testing.assert_close(other, joints)
    for odd in (torch.rand(3, 100, 90, 4), torch.rand(1, 64, 48, 1), torch.rand(40, 20, 33, 3)):
        assert run(model, image, poses=None, pose_video=odd)[0].shape == joints.shape


def test_only_what_changed_is_encoded_again(running_node, model, image, monkeypatch):
    calls = []
    encode = model.base.vae.encode
    monkeypatch.setattr(model.base.vae, "encode", lambda pixels: calls.append(pixels.shape) or encode(pixels))
    run(model, image)
    assert [shape[2] for shape in calls] == [13, 1]
    run(model, image, seed=5, prompt="another", steps=3, cfg=1.0)
    assert len(calls) == 2
    run(model, image, poses=poses(x=25))
    assert len(calls) == 3


def test_a_mask_blacks_out_and_an_empty_one_does_not(running_node, model, image):
    plain = run(model, image)[0]
    half = torch.zeros(1, 40, 30)
    half[:, :20] = 1
    assert not torch.allclose(run(model, image, mask=half)[0], plain, atol=1e-4)
    assert torch.equal(run(model, image, mask=torch.zeros(1, 64, 64))[0], plain)


def test_an_action_acts_together_with_the_poses(running_node, model, image):
    from flexiact_core.cogvideox.model import base_signature
    from flexiact_core.flexiact.fae import FAE

    tokens = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(3))
    action = FAE(tokens, "pan", {"base": base_signature(model.base.transformer)})
    alone = run(model, image)[0]
    assert not torch.allclose(run(model, image, fae=((action, 1.0),))[0], alone, atol=1e-4)
    torch.testing.assert_close(run(model, image, fae=((action, 0.0),))[0], alone, atol=1e-5, rtol=0)


def test_an_action_is_weighted_as_the_base_says(running_node, model, image):
    from flexiact_core.cogvideox.model import base_signature
    from flexiact_core.flexiact.fae import FAE
    from flexiact_core.modules import share_weights

    def saying(strength, hold_until, off_below):
        twin = share_weights(model.base.transformer)
        said = {"strength": strength, "hold_until": hold_until, "off_below": off_below}
        twin.register_to_config(motion_bias=said)
        return dataclasses.replace(model, base=dataclasses.replace(model.base, transformer=twin))

    tokens = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(3))
    fae = ((FAE(tokens, "pan", {"base": base_signature(model.base.transformer)}), 1.0),)
    silent = run(model, image, fae=fae)[0]
    assert torch.equal(run(saying(1.0, 800, 700), image, fae=fae)[0], silent)
    assert not torch.allclose(run(saying(6.0, 500, 0), image, fae=fae)[0], silent, atol=1e-4)


def test_accelerations_run(running_node, model, image):
    from flexiact_pack.nodes.sockets import RunAcceleration

    from flexiact_core.cogvideox.acceleration import Acceleration

    exact = run(model, image, steps=4)[0]
    cached = run(model, image, steps=4, acceleration=RunAcceleration(Acceleration("taylor", interval=1)))[0]
    torch.testing.assert_close(cached, exact, atol=1e-3, rtol=0)


@pytest.mark.parametrize("rate", [44100, 16000])
def test_sound_is_cut_or_filled_to_the_frames(running_node, model, image, rate):
    from fractions import Fraction

    from comfy_api.latest import InputImpl, Types

    for seconds in (0.25, 3.0):
        sound = {"waveform": torch.rand(1, 2, round(seconds * rate)) - 0.5, "sample_rate": rate}
        driving = InputImpl.VideoFromComponents(
            Types.VideoComponents(images=torch.rand(5, 32, 32, 3), audio=sound, frame_rate=Fraction(30))
        )
        audio = run(model, image, driving_video=driving)[1].get_components().audio
        assert audio["sample_rate"] == rate and audio["waveform"].shape == (1, 2, round(13 / 16 * rate))
        kept = min(audio["waveform"].shape[-1], sound["waveform"].shape[-1])
        torch.testing.assert_close(audio["waveform"][..., :kept], sound["waveform"][..., :kept])
        assert not audio["waveform"][..., kept:].any()


@pytest.mark.parametrize("trimmed", [False, True])
def test_sound_is_as_long_as_the_frames_that_the_base_itself_says(running_node, model, image, tmp_path, trimmed):
    from comfy_api.latest import InputImpl
    from host.dynamictrl import RATE, put_inputs

    put_inputs(tmp_path)
    window = {"start_time": 0.5, "duration": 0.25} if trimmed else {}
    driving = InputImpl.VideoFromFile(str(tmp_path / "driving.mp4"), **window)
    frames, video, _ = run(model, image, driving_video=driving, num_frames=0)
    sound = video.get_components().audio
    assert sound["waveform"].shape[-1] == round(len(frames) / 16 * RATE)
    assert sound["waveform"].any()


def test_sound_that_cannot_be_read_is_told_before_the_run(running_node, model, image, tmp_path, monkeypatch):
    from comfy_api.latest import InputImpl
    from flexiact_pack.nodes import dynamictrl

    from flexiact_core.errors import FileError

    monkeypatch.setattr(dynamictrl, "perform_poses", lambda *_, **__: pytest.fail("sampled"))
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(FileError, match="a.mp4: its sound cannot be read"):
        run(model, image, driving_video=InputImpl.VideoFromFile(str(tmp_path / "a.mp4")))


def test_sound_of_a_trimmed_file_begins_where_it_does(running_node, model, image, tmp_path):
    from comfy_api.latest import InputImpl
    from host.dynamictrl import RATE, put_inputs

    put_inputs(tmp_path)
    whole = InputImpl.VideoFromFile(str(tmp_path / "driving.mp4"))
    late = InputImpl.VideoFromFile(str(tmp_path / "driving.mp4"), start_time=0.5, duration=0.25)
    sounds = [run(model, image, driving_video=video)[1].get_components().audio for video in (whole, late)]
    for sound in sounds:
        assert sound["sample_rate"] == RATE and sound["waveform"].shape[-1] == round(13 / 16 * RATE)
    first, second = (sound["waveform"][0, 0] for sound in sounds)
    torch.testing.assert_close(second[: RATE // 4], first[RATE // 2 : RATE * 3 // 4], atol=1e-3, rtol=0)
    assert first[-100:].any() and not second[RATE // 4 :].any()


def test_a_silent_driving_video_gives_no_sound(running_node, model, image):
    from fractions import Fraction

    from comfy_api.latest import InputImpl, Types

    parts = Types.VideoComponents(images=torch.rand(5, 32, 32, 3), frame_rate=Fraction(30))
    assert run(model, image, driving_video=InputImpl.VideoFromComponents(parts))[1].get_components().audio is None


def test_long_and_empty_prompts_and_a_single_pose_run(running_node, model, image, said):
    for prompt in ("", "word " * 200):
        assert run(model, image, prompt=prompt, poses=poses(1))[0].shape[0] == 13
    assert any("the model reads the first" in line for line in said)


def test_a_size_beyond_training_is_told(said):
    from flexiact_pack.nodes.dynamictrl_sampling import _say_what_is_far

    _say_what_is_far(768, 1360)
    assert not said
    _say_what_is_far(1376, 768)
    assert "no side was over 1360" in said[0]


def test_cancel_ends_a_run_and_the_next_one_is_whole(running_node, model, image):
    import comfy.model_management

    whole = run(model, image)[0]
    for _ in range(20):
        comfy.model_management.interrupt_current_processing(True)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            run(model, image)
    assert torch.equal(run(model, image)[0], whole)


def test_the_base_is_asked_for_last():
    assert status() == ["image", "poses"]
    there = {"image": torch.zeros(1, 32, 32, 3), "poses": poses()}
    assert status(**there) == ["model"]
    assert status(**there, model=object()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 50}, "width 50: .*Nearest: 48"),
        ({"num_frames": 81}, "num_frames 81: .*Nearest: 77 or 85"),
        ({"num_frames": 13, "frame_rule": "padded"}, "8k\\+1"),
        ({"pose_start": 60.0, "pose_end": 40.0}, "the start before the end"),
        ({"pose_strength": -1.0}, "between 0 and 2"),
        ({"image_scale": "half"}, "release or training"),
        ({"pose_video": None}, "both are connected"),
        ({"poses": []}, "no frame in it"),
        ({"poses": [{"people": [], "canvas_width": 9, "canvas_height": 9}]}, "no person found"),
        ({"poses": [{"people": [], "canvas_width": 1, "canvas_height": 1}]}, "canvas of 1x1"),
    ],
)
def test_what_cannot_be_is_refused_before_the_base_is_loaded(changes, words):
    from flexiact_core.errors import FlexiActError

    with pytest.raises(FlexiActError, match=words):
        status(**changes)


def test_without_poses_it_is_refused():
    from flexiact_core.errors import SettingError

    asked = {**ASKED, "model": None, "image": None}
    with pytest.raises(SettingError, match="neither is connected"):
        nodes.DynamiCtrlSampler.check_lazy_status(**asked)


def test_other_bases_are_refused_by_name(running_node, small_model, model, image):
    from flexiact_core.errors import FileError

    with pytest.raises(FileError, match="plain CogVideoX base.*gulucaptain/DynamiCtrl"):
        run(small_model, image)
    with pytest.raises(FileError, match="Use Pose Transfer"):
        nodes.FlexiActSampler.execute(
            model,
            image,
            "a",
            "",
            48,
            64,
            1.0,
            800,
            700,
            "paper",
            num_frames=13,
            steps=1,
            cfg=1.0,
            seed=0,
            scheduler="DPM",
        )


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(1, 8, 8), "all of the picture would be black. Invert"),
        (torch.zeros(2, 8, 8), "one mask expected"),
        (torch.full((1, 8, 8), float("nan")), "not numbers"),
    ],
)
def test_masks_that_cannot_be_used_are_sentences(running_node, model, image, mask, words):
    from flexiact_core.errors import FlexiActError

    with pytest.raises(FlexiActError, match=words):
        run(model, image, mask=mask)


def test_flexiact_sampler_runs_plain_1_5_at_its_own_speed(running_node, image, tmp_path):
    import comfy.model_management
    from flexiact_pack.nodes.cogvideox import to_base_model
    from flexiact_pack.nodes.host import memory

    from flexiact_core.cogvideox.loading import load_base

    plain = make_base_1_5(tmp_path / "CogVideoX1.5")
    with memory.normal_tensors():
        model = to_base_model(load_base(plain, plain, torch.float32))
    frames, video, _ = nodes.FlexiActSampler.execute(
        model, image, "a", "", 48, 64, 1.0, 800, 700, "paper", num_frames=17, steps=2, cfg=6.0, seed=0, scheduler="DPM"
    ).args
    assert frames.shape == (17, 64, 48, 3) and video.get_components().frame_rate == 16
    comfy.model_management.unload_all_models()
