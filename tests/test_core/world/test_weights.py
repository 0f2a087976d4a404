"""What the shipped weights do: actions transfer, and only the one that was asked for."""

import numpy as np
import pytest
import torch

from flexiact_core.world import shipped
from flexiact_core.world.actions import ACTIONS
from flexiact_core.world.evaluate import SETTINGS, load_world, make_cases, measure_cases, sample_videos

pytestmark = pytest.mark.skipif(
    not shipped.fae_path("jump").exists() or not shipped.base_folder().exists(),
    reason="the small world's weights are not there; `make world` makes them",
)

STEPS = 15
TARGETS = 4


@pytest.fixture(scope="module")
def world():
    return load_world()


def perform(world, action, tokens, asked=None, **settings):
    """Records of held-out targets under some tokens, measured against `asked`."""
    cases = make_cases(action, SETTINGS["weighted"], TARGETS, 1)
    videos = sample_videos(world, cases, tokens, steps=STEPS, **settings)
    if asked is not None:
        cases = [type(case)(asked, case.target, case.scene, case.words, case.seed) for case in cases]
    return measure_cases(cases, videos)


def mean(records, value):
    return float(np.mean([record[value] for record in records]))


def test_every_file_is_there_and_all_are_within_20_mb():
    files = [file for file in shipped.WEIGHTS.rglob("*") if file.is_file()]
    assert all(shipped.fae_path(action).exists() for action in ACTIONS)
    assert shipped.refadapter_path().exists()
    assert max(file.stat().st_size for file in files) < 16e6
    assert sum(file.stat().st_size for file in files) <= 20e6


def test_an_fae_makes_its_own_action_and_not_another(world):
    slide = perform(world, "slide", world.faes["slide"])
    assert mean(slide, "slope") > 0.6
    as_drop = perform(world, "slide", world.faes["slide"], asked="drop")
    assert mean(as_drop, "slope") < 0.4
    assert mean(slide, "accuracy") >= 0.5 > mean(as_drop, "accuracy")


def test_without_an_fae_the_action_is_not_made(world):
    assert mean(perform(world, "slide", None), "slope") < mean(perform(world, "slide", world.faes["slide"]), "slope")


def test_the_subject_keeps_its_colour_and_the_background_stays(world):
    records = perform(world, "slide", world.faes["slide"])
    assert mean(records, "colour") < 0.15
    assert mean(records, "background") < 0.1


def transfer(base, faes, seed):
    from flexiact_core.cogvideox.model import encode_pixels, encode_prompt
    from flexiact_core.flexiact.schedule import MotionBias
    from flexiact_core.flexiact.transfer import transfer_action
    from flexiact_core.video import to_model_pixels

    cpu = torch.device("cpu")
    example = shipped.example("slide")
    words = encode_prompt(base.text_encoder, base.tokenizer, example.caption, 16, cpu)
    picture = encode_pixels(base.vae, to_model_pixels(torch.from_numpy(example.image[None])), cpu)
    return transfer_action(
        base, picture, words, words, faes=faes, adapters=[], bias=MotionBias(), num_frames=17, steps=4, cfg=1.0,
        scheduler="DPM", seed=seed, device=cpu,
    )  # fmt: skip


@pytest.fixture(scope="module")
def slide():
    from flexiact_core.flexiact.fae import load_fae

    return load_fae(shipped.fae_path("slide"))


def test_strength_0_is_no_fae_bit_for_bit(world, slide):
    assert torch.equal(transfer(world.base, [(slide, 0.0)], 1), transfer(world.base, [], 1))


def test_the_same_seed_gives_the_same_video_and_another_does_not(world, slide):
    first = transfer(world.base, [(slide, 1.0)], 1)
    assert torch.equal(first, transfer(world.base, [(slide, 1.0)], 1))
    assert not torch.equal(first, transfer(world.base, [(slide, 1.0)], 2))


def test_a_blend_is_neither_of_its_parts(world, slide):
    from flexiact_core.flexiact.fae import load_fae

    drop = load_fae(shipped.fae_path("drop"))
    blend = transfer(world.base, [(slide, 0.5), (drop, 0.5)], 1)
    for fae in (slide, drop):
        assert not torch.allclose(blend, transfer(world.base, [(fae, 1.0)], 1), atol=1e-2)


def test_a_briefly_trained_fae_beats_no_fae(world):
    from flexiact_core.world.adapter_training import learn_action

    tokens = learn_action(world.base, "slide", steps=60)
    assert mean(perform(world, "slide", tokens), "slope") > mean(perform(world, "slide", None), "slope") + 0.2
