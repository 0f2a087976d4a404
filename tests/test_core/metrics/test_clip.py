"""CLIP's measures: through our path as through transformers alone, and their values for features worked out by hand."""

from __future__ import annotations

import json

import pytest
import torch
from small_clip import write_small_clip
from torch.testing import assert_close

from flexiact_core.errors import FileError, SettingError, ShapeError
from flexiact_core.metrics import clip as clips

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_clip(tmp_path_factory.mktemp("clip") / "small")


@pytest.fixture(scope="module")
def frames():
    return torch.rand(5, 30, 40, 3, generator=torch.Generator().manual_seed(0))


def test_features_and_similarities_are_those_of_transformers(folder, frames):
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    ours = clips.load_clip(folder, CPU)
    model = CLIPModel.from_pretrained(folder)
    # What a user of transformers gives it: PIL pictures, so 8 bits, and words; and its own cosines, logits_per_image.
    pictures = [Image.fromarray((frame * 255).round().byte().numpy()) for frame in frames]
    pixels = CLIPImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt").pixel_values
    tokens = CLIPTokenizer.from_pretrained(folder)(["a cat"], return_tensors="pt")
    with torch.no_grad():
        theirs = model(pixel_values=pixels, **tokens)
    expected = (theirs.logits_per_image / model.logit_scale.exp()).mean().item()
    rounded = (frames * 255).round() / 255
    seen = ours.see(rounded)
    assert_close(torch.nn.functional.normalize(seen, dim=-1), theirs.image_embeds, atol=1e-6, rtol=0)
    assert clips.text_similarity(seen, ours.read("a cat")) == pytest.approx(expected, abs=1e-6)
    cosines = theirs.image_embeds @ theirs.image_embeds.T
    assert clips.temporal_consistency(seen) == pytest.approx(cosines.diagonal(1).mean().item(), abs=1e-6)
    assert clips.appearance_consistency(seen) == pytest.approx(cosines[0, 1:].mean().item(), abs=1e-6)
    assert cosines.min() < 0.99, "these frames would look alike whatever is done to them"


def test_words_beyond_what_it_reads_are_cut(folder):
    ours = clips.load_clip(folder, CPU)
    assert ours.read("a" * 200).shape == (16,)
    assert_close(ours.read("a " * 100), ours.read("a " * 90))


def test_similarities_of_features_worked_out_by_hand():
    frames = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, -1.0]])
    assert clips.text_similarity(frames, torch.tensor([5.0, 0.0])) == pytest.approx(1 / 3)
    assert clips.temporal_consistency(frames) == pytest.approx((0 - 1) / 2)
    assert clips.appearance_consistency(frames) == pytest.approx(0)
    with pytest.raises(ShapeError, match="at least 2 frames"):
        clips.temporal_consistency(frames[:1])


def test_more_frames_than_are_looked_at_together_give_the_same(folder, monkeypatch, frames):
    ours = clips.load_clip(folder, CPU)
    whole = ours.see(frames)
    monkeypatch.setattr(clips, "FRAMES_AT_ONCE", 2)
    assert_close(ours.see(frames), whole)


def test_a_folder_without_a_preparation_takes_clips_own_at_the_models_size(tmp_path, frames):
    folder = write_small_clip(tmp_path / "bare")
    (folder / "preprocessor_config.json").unlink()
    assert clips.load_clip(folder, CPU).see(frames).shape == (5, 16)


@pytest.mark.parametrize("broken", ["tokenizer", "kind", "weights", "config"])
def test_what_is_no_whole_clip_is_refused_in_a_sentence(tmp_path, broken):
    folder = write_small_clip(tmp_path / "mine")
    if broken == "tokenizer":
        (folder / "vocab.json").unlink()
    elif broken == "kind":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    elif broken == "weights":
        (folder / "model.safetensors").unlink()
    else:
        (folder / "config.json").write_text("{")
    with pytest.raises(FileError, match="mine"):
        clips.load_clip(folder, CPU)


def test_an_encoder_without_comparable_features_is_refused():
    with pytest.raises(SettingError, match="Choose one of CLIP"):
        clips.check_features(None, 3)
    with pytest.raises(SettingError):
        clips.check_features(torch.zeros(3, 4, 5), 3)
    assert clips.check_features(torch.ones(3, 4, dtype=torch.float16), 3).dtype == torch.float32
