"""The table of the small AMG, on a model that was never trained."""

import pytest
import torch

from flexiact_core.metrics.statistics import interval
from flexiact_core.world.making.amg_models import (
    make_amg_text_encoder,
    make_amg_tokenizer,
    make_amg_unet,
    make_amg_vae,
)
from flexiact_core.world.making.amg_table import ROWS, Bench, make_amg_table, run_row
from flexiact_core.world.take_cases import film_takes, make_take_cases
from flexiact_core.world.takes import render_avatar, take_caption


@pytest.fixture(scope="module")
def amg():
    from flexiact_core.amg.model import AMG

    torch.manual_seed(0)
    parts = [part.eval().requires_grad_(False) for part in (make_amg_unet(), make_amg_text_encoder(), make_amg_vae())]
    return AMG(parts[0], torch.float32, text_encoder=parts[1], tokenizer=make_amg_tokenizer(), vae=parts[2])


def test_avatar_caption_and_seed_each_reach_the_video(amg):
    first, second = (case.take for case in make_take_cases(2))
    said, other = take_caption(first, "sky"), take_caption(first, "brick")
    avatars = [render_avatar(take) for take in (first, second)]
    runs = [(avatars[0], said, 0), (avatars[1], said, 0), (avatars[0], other, 0), (avatars[0], said, 1)]
    videos = film_takes(amg, *zip(*runs), steps=2)
    assert videos.shape == (4, 8, 64, 64, 3)
    assert all((videos[0] != video).any() for video in videos[1:])


def test_takes_made_together_are_what_each_is_alone(amg):
    cases = make_take_cases(2)
    avatars = [render_avatar(case.take) for case in cases]
    together = film_takes(amg, avatars, ["a person", "a tan person in green"], [4, 5], steps=2)
    alone = film_takes(amg, avatars[1:], ["a tan person in green"], [5], steps=2)
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-4)


def test_true_videos_would_meet_the_aims_and_avatars_alone_would_not(amg):
    bench = Bench(amg, make_take_cases(10), 1, 1.0)
    results = {name: run_row(bench, name)[0] for name in ("true", "render")}
    means = {
        name: [interval(records, value)[0] for value in ("overlap", "camera", "scene")]
        for name, records in results.items()
    }
    assert means["true"][0] > 0.85 and means["true"][1] > 0.4 and means["true"][2] == 1.0
    assert means["render"][2] == 0.0
    assert make_amg_table(results).count("| 10 |") == 2 and set(results) < set(ROWS)
