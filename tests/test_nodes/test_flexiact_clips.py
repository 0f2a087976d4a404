"""FlexiAct's clip nodes, called as ComfyUI calls them, on a small random base of 17 frames of 64x64 pixels."""

from __future__ import annotations

import csv

import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from videos import make_video

clips = pytest.importorskip("flexiact_pack.nodes.flexiact_clips", reason="needs ComfyUI: run `make test`")

from flexiact_pack.nodes.host import encodings, folders, media, progress  # noqa: E402

from flexiact_core.clip_lists import read_clip_list  # noqa: E402
from flexiact_core.cogvideox.model import encode_pixels  # noqa: E402
from flexiact_core.errors import ShapeError  # noqa: E402
from flexiact_core.video import to_model_pixels  # noqa: E402

pytestmark = pytest.mark.usefixtures("model_folders", "running_node")
SETTINGS = {
    "caption": "a bar moves", "fps": 8.0, "start": 0.0, "duration": 0.0, "crops": 3, "smallest_scale": 0.8,
    "largest_scale": 1.2, "flip": False, "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def frames():
    return torch.rand(20, 64, 64, 3, generator=torch.Generator().manual_seed(0))


def prepare(model, reference, **changes):
    return clips.PrepareActionClips.execute(model, reference, **SETTINGS | changes).args


def test_the_first_clip_is_uncut_and_each_is_what_the_vae_makes_of_it(small_model, frames):
    prepared, preview = prepare(small_model, frames)
    assert len(prepared.encoded.video.mean) == 3 and prepared.caption == "a bar moves"
    # A stretch of 17 of the 20 frames, the base's length.
    places = [start for start in range(4) if torch.equal(prepared.first_video, frames[start : start + 17])]
    assert len(places) == 1
    direct = encode_pixels(small_model.base.vae, to_model_pixels(prepared.first_video), torch.device("cpu"))
    assert_close(prepared.encoded.video.mean[:1], direct.mean)
    first = encode_pixels(small_model.base.vae, to_model_pixels(prepared.first_video[:1]), torch.device("cpu"))
    assert_close(prepared.first_image.mean, first.mean)
    assert_close(prepared.encoded.prompt_embeds, encodings.encode_prompt(small_model, "a bar moves"))
    assert preview.ndim == 4


def test_the_digest_tells_clips_apart_by_all_that_made_them(small_model, frames):
    same = [prepare(small_model, frames)[0].digest for _ in range(2)]
    assert same[0] == same[1]
    for changes in ({"seed": 2}, {"crops": 2}, {"caption": "other"}, {"largest_scale": 1.0}):
        assert prepare(small_model, frames, **changes)[0].digest != same[0], changes
    assert prepare(small_model, frames * 0.9)[0].digest != same[0]


def test_start_duration_and_speed_choose_the_stretch(small_model, frames):
    # 40 frames at 16 per second are 20 at 8; from 0.5 s on, for 9/8 s.
    fast = frames.repeat_interleave(2, 0)
    prepared, _ = prepare(small_model, fast, fps=16.0, start=0.5, duration=9 / 8)
    assert_close(prepared.first_video, frames[4:13])


def test_too_short_a_stretch_is_refused(small_model, frames):
    with pytest.raises(ShapeError, match="at least 9"):
        prepare(small_model, frames[:8])


def test_prepared_clips_are_taken_as_they_are_and_a_video_is_prepared(small_model, frames):
    prepared, _ = prepare(small_model, frames)
    assert clips.as_clips(small_model, prepared, "another caption", 1, 99) is prepared
    assert clips.as_clips(small_model, frames, "a bar moves", 3, 1).digest == prepared.digest
    video = media.to_video(frames, 8)
    assert clips.as_clips(small_model, video, "a bar moves", 3, 1).digest == prepared.digest


def test_each_clip_is_a_step_of_the_bar_and_cancel_ends_it(small_model, frames, monkeypatch):
    steps = []
    monkeypatch.setattr(progress.Progress, "step", lambda self, done, preview=None: steps.append(done))
    prepare(small_model, frames)
    assert steps == [1, 2, 3]

    def cancel(self, done, preview=None):
        raise progress.interrupt()

    monkeypatch.setattr(progress.Progress, "step", cancel)
    with pytest.raises(progress.interrupt()):
        prepare(small_model, frames)


@pytest.fixture
def benchmark(model_folders):
    """The authors' folder with one action, of two clips and one target, and what the target shows."""
    root = model_folders / "flexiact" / "benchmark"
    folder = root / "captions" / "animal" / "jump"
    media_folder = root / "videos"
    folder.mkdir(parents=True)
    media_folder.mkdir()
    with (folder / "crop.csv").open("w", newline="") as lines:
        for number in range(2):
            make_video(media_folder / f"{number}.mp4", 40, 20)
            csv.writer(lines).writerow([f"videos/{number}.mp4", 0, 40, 20, 0, f"cat {number} jumps"])
    Image.new("RGB", (40, 30), (255, 0, 0)).save(media_folder / "target.png")
    with (folder / "val_image.csv").open("w", newline="") as lines:
        csv.writer(lines).writerow(["videos/target.png", "a dog jumps"])
    return "animal/jump"


def test_a_released_action_gives_its_clips_with_their_captions_and_its_targets(small_model, benchmark):
    assert list(clips.find_released_actions()) == [benchmark]
    prepared, preview, targets, captions = clips.LoadReleasedAction.execute(small_model, benchmark, 0).args
    assert len(prepared.encoded.video.mean) == len(prepared.encoded.prompt_embeds) == 2
    for number in range(2):
        assert_close(
            prepared.encoded.prompt_embeds[number : number + 1],
            encodings.encode_prompt(small_model, f"cat {number} jumps"),
        )
    assert captions == ["a dog jumps"] and targets[0].shape == (1, 30, 40, 3)
    assert_close(targets[0][0, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_saved_clips_are_what_is_cut_and_are_listed_and_read_again(small_model, model_folders, said):
    # Not noise, of which a video keeps half the colour only.
    across, bright = torch.linspace(0, 0.7, 64), torch.linspace(0, 0.3, 20)
    frames = (across[:, None] / 2 + across / 2 + bright[:, None, None])[..., None].expand(-1, -1, -1, 3)
    _, cut = prepare(small_model, frames)
    save = {"name": "jump", "kind": "own"}
    action, listed, preview = clips.SaveActionClips.execute(small_model, frames, **SETTINGS | save).args
    assert action == "own/jump" and action in clips.find_released_actions()
    found = read_clip_list(*folders.input_file(listed))
    assert [(clip.path.name, clip.caption) for clip in found] == [(f"{n}.mp4", "a bar moves") for n in range(3)]
    assert torch.equal(preview, cut)
    assert said[-1] == "Saved as own/jump in models/flexiact/own_actions/benchmark."
    root = model_folders / "flexiact" / "own_actions" / "benchmark"
    with (root / "captions" / "own" / "jump" / "crop.csv").open() as lines:
        rows = list(csv.reader(lines))
    place = "benchmark/reference_videos/own/jump_crop"
    assert rows == [
        ["video_path", "start_frame", "end_frame", "fps", "mask_id", "caption"],
        *([f"{place}/{number}.mp4", "0", "17", "8", "0", "a bar moves"] for number in range(3)),
    ]
    read, shown, targets, captions = clips.LoadReleasedAction.execute(small_model, action, 0).args
    assert len(read.encoded.video.mean) == 3 and targets == captions == []
    assert_close(shown, cut, atol=0.05, rtol=0)


def test_an_action_that_was_saved_before_stays(small_model, frames, model_folders):
    save = {"name": "../ju:mp", "kind": "own"}

    def saved(**changes):
        return clips.SaveActionClips.execute(small_model, frames, **SETTINGS | save | changes).args[0]

    first, other = saved(), saved(seed=2)
    assert other == f"{first}_2" and {first, other} == set(clips.find_released_actions())
    # The same clips once more are those that are there.
    assert (saved(), saved(seed=2), saved(caption="else")) == (first, other, f"{first}_3")
    assert {path.name for path in model_folders.parent.iterdir()} == {"models"}
