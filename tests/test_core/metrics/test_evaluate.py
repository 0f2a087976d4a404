"""All measures of a video: each if what it takes is there, and a sentence if not."""

from __future__ import annotations

import json

import pytest
import torch

from flexiact_core.metrics.evaluate import MEASURES, evaluate_video
from flexiact_core.metrics.tracks import Tracks


class Colours:
    """Sees the mean colour of a frame, and reads the names of three colours."""

    def see(self, frames):
        return frames.mean((1, 2))

    def read(self, words):
        return {"red": torch.tensor([1.0, 0, 0]), "blue": torch.tensor([0, 0, 1.0])}.get(words)


@pytest.fixture
def red():
    return torch.tensor([1.0, 0, 0]).expand(5, 40, 40, 3).clone()


def moving(num_frames):
    paths = torch.arange(float(num_frames))[:, None, None] * torch.tensor([[2.0, 0.0]])
    return Tracks(paths, torch.ones(num_frames, 1, dtype=torch.bool), 40, 40)


def test_everything_is_measured_of_what_is_there(red):
    pytest.importorskip("torchmetrics")
    made = evaluate_video(
        red, prompt="red", clip=Colours(), tracks=moving(5), reference=moving(9), exact=(red * 0.9).clamp(0, 1)
    )
    assert made.values["text_similarity"] == made.values["temporal_consistency"] == pytest.approx(1)
    assert made.values["motion_fidelity"] == made.values["moving_fidelity"] == pytest.approx(1)
    assert made.values["psnr"] == pytest.approx(10 * 2 + 4.77, abs=0.01)  # a tenth, in one of three channels
    assert list(made.values) == [name for name in MEASURES if name in made.values]
    assert set(made.values) | set(made.missing) == set(MEASURES)
    assert json.loads(made.as_json())["psnr"] == pytest.approx(made.values["psnr"])


def test_what_cannot_be_measured_is_said_and_stops_nothing_else(red):
    made = evaluate_video(red[:1], prompt="green", clip=Colours(), exact=red)
    assert made.values == {}
    assert made.missing["temporal_consistency"].startswith("consistency: at least 2 frames")
    assert "no words" in made.missing["text_similarity"] and "expected" in made.missing["psnr"]
    table = made.table()
    assert "Not measured:" in table and "- motion fidelity: give the reference" in table
    assert "the prompt is empty" in evaluate_video(red, clip=Colours()).missing["text_similarity"]
    assert "choose a CLIP" in evaluate_video(red).missing["appearance_consistency"]


def test_the_words_count_for_text_similarity_alone(red):
    right, wrong = (evaluate_video(red, prompt=word, clip=Colours()).values for word in ("red", "blue"))
    assert right["text_similarity"] == pytest.approx(1) and wrong["text_similarity"] == pytest.approx(0)
    assert right["appearance_consistency"] == wrong["appearance_consistency"]


def test_an_equal_video_is_no_number_in_json(red):
    made = evaluate_video(red, exact=red)
    assert made.values["psnr"] == float("inf") and json.loads(made.as_json())["psnr"] is None
    assert "| PSNR | inf |" in made.table()
