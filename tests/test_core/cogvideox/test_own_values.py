from __future__ import annotations

import pytest

from flexiact_core.cogvideox.family import COGVIDEOX_1_0, COGVIDEOX_1_5
from flexiact_core.cogvideox.own_values import OwnValues, check_asked, own_values
from flexiact_core.errors import FileError, SettingError

RELEASED = {"sample_width": 90, "sample_height": 60, "sample_frames": 49, "patch_size_t": None}
RELEASED_VAE = {"sample_width": 720, "sample_height": 480}
# CogVideoX 1.5's VAE still says the size that 1.0's was trained at.
RELEASED_1_5 = {"sample_width": 170, "sample_height": 96, "sample_frames": 81, "patch_size_t": 2}


def test_the_released_bases_own_values_are_the_releases():
    assert own_values(RELEASED, RELEASED_VAE) == OwnValues(720, 480, 49, 50, 6.0)
    assert own_values({}) == OwnValues(720, 480, 49, 50, 6.0)
    assert own_values(RELEASED_1_5, RELEASED_VAE) == OwnValues(1360, 768, 81, 50, 6.0)
    assert own_values(RELEASED_1_5 | {"pose_norms": True}, RELEASED_VAE) == OwnValues(768, 1360, 37, 25, 3.0)


def test_a_smaller_base_is_told_by_its_vae_and_transformer_and_by_what_its_config_says():
    small, vae = RELEASED | {"sample_frames": 17}, {"sample_width": 64, "sample_height": 96}
    assert own_values(small, vae) == OwnValues(64, 96, 17, 50, 6.0)
    assert own_values(small | {"run": {"steps": 25, "cfg": 1.0, "height": 32}}, vae) == OwnValues(64, 32, 17, 25, 1.0)
    assert own_values(RELEASED_1_5 | {"run": {"width": 128, "height": 128}}).width == 128


def test_only_what_is_0_is_completed():
    own = OwnValues(64, 96, 17, 25, 1.0)
    assert own.complete(width=0, height=32, cfg=0.0) == {"width": 64, "height": 32, "cfg": 1.0}


@pytest.mark.parametrize(
    "said", ["fast", {"speed": 3}, {"steps": 0}, {"steps": 2.5}, {"cfg": "6"}, {"width": True}, {"cfg": float("nan")}]
)
def test_a_config_that_says_anything_else_is_refused_with_the_key(said):
    with pytest.raises(FileError, match="config.json: 'run' "):
        own_values({"run": said})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"width": 72}, "width 72.*Nearest: 64"),
        ({"width": 64, "height": 100}, "height 100.*Nearest: 96"),
        ({"num_frames": 50}, "Nearest: 49"),
        ({"cfg": 0.5}, "cfg 0.5: 0 is the base's own"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_and_0_always_can(asked, message):
    with pytest.raises(SettingError, match=message):
        check_asked(COGVIDEOX_1_0, asked)
    for family in (COGVIDEOX_1_0, COGVIDEOX_1_5):
        check_asked(family, dict.fromkeys(("width", "height", "num_frames", "steps", "cfg"), 0))
