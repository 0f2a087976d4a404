"""Evaluate Video: what is connected is measured, as the core measures it, and what is not is said."""

from __future__ import annotations

import json

import pytest
import torch
from small_clip import write_small_clip

metrics = pytest.importorskip("flexiact_pack.nodes.metrics", reason="needs ComfyUI: run `make test`")

from flexiact_core.errors import FileError, SettingError, ShapeError  # noqa: E402
from flexiact_core.metrics import clip as clips  # noqa: E402


@pytest.fixture(scope="module")
def video():
    """A square that goes right over a pattern, (9, 64, 64, 3)."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 8, 8, 3, generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2) * 0.3
    frames = frames.repeat(9, 1, 1, 1)
    for index in range(9):
        frames[index, 20:40, 8 + 4 * index : 24 + 4 * index] = torch.tensor([0.9, 0.4, 0.2])
    return frames


def evaluate(frames, prompt="", clip="none", fps=8.0, **inputs):
    table, values, picture = metrics.EvaluateVideo.execute(frames, prompt, clip, fps, **inputs).args
    return table, json.loads(values), picture


def right(num_frames, speed=2.0):
    """TRACKS as ComfyUI's nodes give them: two points that go right."""
    paths = torch.arange(float(num_frames))[:, None, None] * torch.tensor([[speed, 0.0]] * 2)
    return {"track_path": paths, "track_visibility": torch.ones(num_frames, 2, dtype=torch.bool)}


def test_a_folder_of_clip_gives_the_numbers_of_the_core(model_folders, running_node, said, video):
    folder = write_small_clip(model_folders / "clip_vision" / "openai" / "small")
    assert list(metrics.find_clips()) == ["openai/small"]
    assert metrics.EvaluateVideo.validate_inputs("openai/small") is True
    table, values, _ = evaluate(video, "a cat", "openai/small")
    own = clips.load_clip(folder, torch.device("cpu"))
    expected = clips.text_similarity(own.see(video), own.read("a cat"))
    assert values["text_similarity"] == pytest.approx(expected, abs=1e-5)
    assert values["temporal_consistency"] == pytest.approx(clips.temporal_consistency(own.see(video)), abs=1e-5)
    assert "| text similarity |" in table and "motion fidelity: connect the reference" in table
    assert said == [table]


def test_comfyuis_clip_sees_and_reads_nothing(running_node, said, video):
    class Vision:
        def encode_image(self, image, crop=True):
            return {"image_embeds": image.mean((1, 2))}

    table, values, _ = evaluate(video, "a cat", clip_vision=Vision())
    assert set(values) == {"temporal_consistency", "appearance_consistency"}
    assert values["temporal_consistency"] == pytest.approx(clips.temporal_consistency(video.mean((1, 2))), abs=1e-5)
    assert "text similarity: CLIP_VISION reads no words" in table


def test_an_encoder_without_features_is_named(running_node, said, video):
    class Other:
        def encode_image(self, image, crop=True):
            return {"image_embeds": None}

    table, values, _ = evaluate(video, clip_vision=Other())
    assert values == {} and "clip_vision: this encoder gives no features" in table


def test_a_video_follows_itself_and_not_its_reverse(running_node, said, video):
    pytest.importorskip("cv2")
    _, same, picture = evaluate(video, reference=video)
    _, back, _ = evaluate(video.flip(0), reference=video)
    assert same["motion_fidelity"] == pytest.approx(1, abs=1e-3)
    assert back["moving_fidelity"] < 0.5 < same["moving_fidelity"]
    assert picture.shape[0] == 1 and picture.shape[-1] == 3


def test_tracks_of_another_node_go_before_the_built_in_tracker(running_node, said, video):
    _, values, _ = evaluate(video, tracks=right(9), reference_tracks=right(9, speed=5.0))
    assert values["motion_fidelity"] == pytest.approx(1)
    _, values, _ = evaluate(video, tracks=right(9), reference_tracks=right(9, speed=-5.0))
    assert values["motion_fidelity"] == pytest.approx(-1)
    with pytest.raises(ShapeError, match="tracks: no track_path"):
        evaluate(video, tracks={}, reference_tracks=right(9))


def test_without_a_tracker_the_table_names_the_package(running_node, said, video, monkeypatch):
    from flexiact_core.metrics import tracks

    monkeypatch.setattr(tracks, "can_track", lambda: False)
    table, values, _ = evaluate(video, reference=video, truth=video)
    assert "motion_fidelity" not in values and "opencv-python-headless" in table
    assert "| PSNR | inf |" in table


def test_a_clip_that_is_gone_is_named_with_the_way_out(model_folders, running_node, video):
    assert "not in models/clip_vision" in metrics.EvaluateVideo.validate_inputs("gone")
    with pytest.raises(FileError, match="hf download openai/clip"):
        evaluate(video, clip="gone")


def test_cancel_stops_between_frames(running_node, video, monkeypatch):
    def stop(self, done, total):
        raise SettingError("cancelled")

    class Vision:
        def encode_image(self, image, crop=True):
            raise AssertionError("after Cancel")

    monkeypatch.setattr(metrics.progress.LongCall, "__call__", stop)
    with pytest.raises(SettingError, match="cancelled"):
        metrics.HostClip(Vision()) and metrics.in_parts(metrics.HostClip(Vision()).see, video)
