"""Videos that a training is tried with while it runs."""

from __future__ import annotations

import pytest
import torch

from flexiact_core.cogvideox.sampling import Run
from flexiact_core.errors import FileError
from flexiact_core.flexiact import samples as samples_module
from flexiact_core.flexiact.released import read_targets
from flexiact_core.flexiact.samples import SAMPLE_STEPS, SampleVideos

CPU = torch.device("cpu")


@pytest.fixture
def targets(benchmark):
    listed = benchmark / "captions" / "human" / "rotate" / "val_image.csv"
    listed.write_text(
        "Path,Caption\n" + "".join(f"benchmark/target_images/human/girl.webp,A girl {n}\n" for n in "abc")
    )
    return read_targets(listed)


def test_processes_share_the_pictures_and_together_make_each_once(base, targets, tmp_path):
    both = [SampleVideos(base, targets, tmp_path, CPU, shard=(number, 2)) for number in range(2)]
    assert [[picture.number for picture in one.pictures] for one in both] == [[1, 3], [2]]


def test_a_stop_ends_a_video_that_is_being_made_and_keeps_none_of_it(base, targets, tmp_path):
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == SAMPLE_STEPS + 3

    samples = SampleVideos(base, targets, tmp_path / "kept", CPU, should_stop=should_stop)
    assert samples.draw(7) == []
    # The first was whole by then; the second was stopped in its third step.
    assert [file.name for file in (tmp_path / "kept").rglob("*.mp4")] == ["01_girl.mp4"]
    assert len(asked) == SAMPLE_STEPS + 3


def test_every_round_has_the_same_seed_and_each_picture_its_own_caption(base, targets, tmp_path, monkeypatch):
    seen = []

    def transfer(base, image, prompt_embeds, negative_embeds, run: Run, **how):
        seen.append((run.seed, prompt_embeds))
        return torch.zeros(1, 3, 16, base.transformer.config.sample_height, base.transformer.config.sample_width)

    monkeypatch.setattr(samples_module, "transfer_action", transfer)
    samples = SampleVideos(base, targets[:2], tmp_path, CPU, seed=5)
    for step in (1, 2):
        samples.draw(step)
    assert [seed for seed, _ in seen] == [5] * 4
    assert torch.equal(seen[0][1], seen[2][1]) and not torch.equal(seen[0][1], seen[1][1])


def test_a_picture_that_cannot_be_read_is_said_before_the_training(base, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(FileError, match="broken.png: this picture cannot be read"):
        SampleVideos(base, [(broken, "")], tmp_path, CPU)
