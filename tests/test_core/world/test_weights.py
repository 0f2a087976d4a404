"""What the shipped weights do: actions transfer, and only the one that was asked for."""

import json

import numpy as np
import pytest
import torch
from host.workflow import find_workflow

from flexiact_core.world import shipped
from flexiact_core.world.actions import ACTIONS
from flexiact_core.world.cases import SETTINGS, Case, load_world, make_cases, measure_cases, sample_videos
from flexiact_core.world.making.vae_training import measure_vae
from flexiact_core.world.measure import measure_action

pytestmark = pytest.mark.skipif(
    not shipped.fae_path("jump").exists() or not shipped.base_folder().exists(),
    reason="the small world's weights are not there; `make world` makes them",
)

STEPS = 15
TARGETS = 4


@pytest.fixture(scope="module")
def world():
    return load_world()


def perform(world, action, tokens):
    """Records of held-out targets of `action` under some tokens."""
    cases = make_cases(action, SETTINGS["weighted"], TARGETS, 1)
    return measure_cases(cases, sample_videos(world, cases, tokens, steps=STEPS))


def mean(records, value):
    return float(np.mean([record[value] for record in records]))


def test_every_file_is_there_and_all_are_within_20_mb():
    # What belongs to other systems lies in the same folders, under names of its own.
    files = [file for file in shipped.WEIGHTS.glob(f"*/{shipped.LABEL}/**/*") if file.is_file()]
    assert all(shipped.fae_path(action).exists() for action in ACTIONS)
    assert shipped.refadapter_path().exists()
    assert max(file.stat().st_size for file in files) < 16e6
    assert sum(file.stat().st_size for file in files) <= 20e6


def test_what_the_other_systems_ship_is_within_30_mb():
    folders = [shipped.WEIGHTS / "act_vae", *shipped.WEIGHTS.glob(f"*/{shipped.ACTORS_LABEL}")]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert len(folders) == 4 and sum(file.stat().st_size for file in files) <= 30e6


# Each beside one it could be mistaken for.
PAIRS = [("jump", "drop"), ("slide", "sway"), ("spin", "jump"), ("pan", "slide"), ("grow", "shrink")]


@pytest.mark.parametrize(("action", "other"), PAIRS, ids=[action for action, _ in PAIRS])
def test_an_fae_makes_its_own_action_and_not_another(world, action, other):
    records = perform(world, action, world.faes[action])
    assert mean(records, "slope") > 0.6
    assert mean(records, "accuracy") >= 0.75
    assert mean(perform(world, action, world.faes[other]), "accuracy") <= 0.25


def test_without_an_fae_the_action_is_not_made(world):
    records = perform(world, "slide", None)
    assert mean(records, "slope") < 0.5
    assert mean(records, "accuracy") <= 0.25


def test_the_subject_keeps_its_colour_and_the_background_stays(world):
    records = perform(world, "slide", world.faes["slide"])
    assert mean(records, "colour") < 0.06
    assert mean(records, "background") < 0.04
    assert mean(records, "shape") < 0.4


def transfer(base, faes, seed):
    from flexiact_core.cogvideox.model import encode_pixels, encode_prompt
    from flexiact_core.cogvideox.sampling import Run
    from flexiact_core.flexiact.transfer import transfer_action
    from flexiact_core.video import to_model_pixels

    cpu = torch.device("cpu")
    example = shipped.example("slide")
    words = encode_prompt(base.text_encoder, base.tokenizer, example.caption, 16, cpu)
    picture = encode_pixels(base.vae, to_model_pixels(torch.from_numpy(example.image[None])), cpu)
    return transfer_action(base, picture, words, words, Run(17, cpu, steps=4, cfg=1.0, seed=seed), faes=faes)


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


def test_a_blend_of_two_actions_does_both(world):
    slide, jump = world.faes["slide"], world.faes["jump"]
    cases = make_cases("hop", SETTINGS["weighted"], TARGETS, 1)

    def shares(tokens):
        videos = sample_videos(world, cases, tokens, steps=STEPS)
        found = [[measure_action(v, c.scene, part).slope for part in ("slide", "jump")] for c, v in zip(cases, videos)]
        return np.mean(found, axis=0)

    assert shares(slide)[0] > 0.5 > 0.2 > abs(shares(slide)[1])
    assert shares(jump)[1] > 0.5 > 0.2 > abs(shares(jump)[0])
    # Each token of the jump twice: what strength 2 is.
    assert (shares(torch.cat([slide, jump, jump], dim=1)) > 0.25).all()


def test_a_briefly_trained_fae_beats_no_fae(world):
    from flexiact_core.world.making.adapter_training import learn_action

    tokens = learn_action(world.base, "slide", steps=60)
    records = perform(world, "slide", tokens)
    assert mean(records, "slope") > mean(perform(world, "slide", None), "slope") + 0.3
    assert mean(records, "accuracy") >= 0.75  # by chance: one of eleven


def test_the_vae_keeps_subjects_that_move(world):
    assert measure_vae(world.base.vae, 4, seed=5)["sprite_psnr_db"] > 27


def test_an_action_that_the_base_never_saw_is_carried_over(world):
    records = perform(world, "hop", world.faes["hop"])
    assert mean(records, "slope") > 0.6
    assert mean(records, "accuracy") >= 0.5  # by chance: one of eleven


def test_a_word_moves_a_subject_that_stays_whole(world):
    records = []
    for action in ("grow", "pan", "slide"):
        cases = make_cases(action, SETTINGS["word"], TARGETS, 1)
        records += measure_cases(cases, sample_videos(world, cases, None, steps=STEPS))
    assert mean(records, "likeness") > 0.5
    assert mean(records, "accuracy") == 1.0 and mean(records, "right_shape") > 0.65


def test_the_subject_of_the_quickstart_stays_whole_as_it_acts_whatever_the_seed(world):
    graph = json.loads(find_workflow("flexiact_quickstart").read_text(encoding="utf-8"))
    target, action = next(n["widgets_values"] for n in graph["nodes"] if n["type"] == "LoadExampleAction")
    example = shipped.example(action, target)
    cases = [Case(action, target, example.target, example.caption, seed) for seed in range(3)]
    records = measure_cases(cases, sample_videos(world, cases, world.faes[action], steps=STEPS))
    assert min(record["likeness"] for record in records) > 0.6
    assert min(record["right_shape"] for record in records) > 0.9
    assert min(record["slope"] for record in records) > 0.75 and mean(records, "accuracy") == 1.0


def test_the_weighting_lets_the_action_speak_against_a_word_that_names_another(world):
    def against(setting):
        records = []
        for action in ("jump", "slide", "spin"):
            cases = make_cases(action, SETTINGS[setting], TARGETS, 1)
            videos = sample_videos(world, cases, world.faes[action], steps=STEPS, bias=SETTINGS[setting].bias)
            records += measure_cases(cases, videos)
        return mean(records, "slope")

    assert against("other_1") > against("other_0") + 0.08
