"""What the small people's shipped AMG does: a person is where the avatar is, before the scene of the caption."""

import numpy as np
import pytest
import torch

from flexiact_core.world import shipped
from flexiact_core.world.take_cases import film_takes, load_small_amg, make_take_cases
from flexiact_core.world.take_measure import measure_take
from flexiact_core.world.takes import render_avatar, take_caption

STEPS = 10
CASES = make_take_cases(5)
SEEDS = [case.seed for case in CASES]


@pytest.fixture(scope="module")
def amg():
    return load_small_amg()


def film(amg, avatars, scenes):
    captions = [take_caption(case.take, scene) for case, scene in zip(CASES, scenes, strict=True)]
    return film_takes(amg, avatars, captions, SEEDS, steps=STEPS)


def overlap(videos, takes):
    return float(np.mean([measure_take(video, take).overlap for video, take in zip(videos, takes, strict=True)]))


@pytest.fixture(scope="module")
def filmed(amg):
    return film(amg, [render_avatar(case.take) for case in CASES], [case.take.scene for case in CASES])


def test_its_files_are_within_11_mb():
    files = [file for file in shipped.amg_folder().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 11e6


def test_the_person_is_where_the_avatar_is_and_not_where_another_cameras_is(filmed):
    own = overlap(filmed, [case.take for case in CASES])
    assert own >= 0.6 and overlap(filmed, [case.by_other_camera() for case in CASES]) <= own - 0.2


def test_the_person_does_another_motion_when_given_that(amg, filmed):
    others = [case.other_motion() for case in CASES]
    videos = film(amg, [render_avatar(take) for take in others], [case.take.scene for case in CASES])
    assert overlap(videos, others) >= overlap(filmed, others) + 0.05


def test_without_an_avatar_nobody_is_in_its_place(amg, filmed):
    black = [torch.zeros(8, 64, 64, 3)] * len(CASES)
    videos = film(amg, black, [case.take.scene for case in CASES])
    takes = [case.take for case in CASES]
    assert overlap(videos, takes) <= overlap(filmed, takes) - 0.2


def test_the_scene_is_the_captions(amg, filmed):
    assert [measure_take(v, c.take).scene for v, c in zip(filmed, CASES, strict=True)] == [c.take.scene for c in CASES]
    others = [case.other_scene() for case in CASES]
    videos = film(amg, [render_avatar(case.take) for case in CASES], others)
    assert [measure_take(v, c.take).scene for v, c in zip(videos, CASES, strict=True)] == others
