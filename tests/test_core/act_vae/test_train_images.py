"""P2I trained from the command line: what is written loads, and what was stopped goes on."""

from __future__ import annotations

import pytest
import torch
from act_vae_data import put_list, put_release

from flexiact_core.act_vae.loading import load_act_vae, states_of
from flexiact_core.act_vae.train_images import parse_arguments, train
from flexiact_core.errors import SettingError

SMALL = ["--batch-size", "2", "--width", "4", "--blocks", "1", "--side", "16", "--checkpoint-every", "2"]


@pytest.fixture
def command(tmp_path):
    """command(...) trains on a small list with the settings given and gives the model written."""
    path, pictures = put_list(tmp_path)
    release = put_release(tmp_path / "pretrain")

    def run(name: str, *more: str):
        output = tmp_path / f"{name}.safetensors"
        places = ["--list", path, "--pictures", pictures, "--model", release, "--output", output]
        return load_act_vae(train(parse_arguments([*map(str, places), *SMALL, *more])))

    return run


def test_what_was_learned_is_one_file_with_the_predictor_it_was_given(command, tmp_path, capsys):
    made, given = command("made", "--steps", "4"), load_act_vae(tmp_path / "pretrain")
    for key, value in given.predictor.state_dict().items():
        assert torch.equal(made.predictor.state_dict()[key], value)
    assert made.generator is not None and made.critic is not None and made.actions == given.actions
    said = capsys.readouterr().out
    assert "the perceptual loss is left out" in said and "step 4/4 loss" in said


def test_a_training_goes_on_from_its_checkpoint_bit_for_bit(command, capsys):
    whole = command("whole", "--steps", "6")
    command("parts", "--steps", "3")
    parts = command("parts", "--steps", "6")
    assert "resuming at step 3" in capsys.readouterr().out
    for part, state in states_of(whole).items():
        for key, value in state.items():
            assert torch.equal(states_of(parts)[part][key], value), key


def test_lists_and_sizes_that_do_not_fit_are_said(command):
    with pytest.raises(SettingError, match="side 20: a multiple of 8"):
        command("x", "--side", "20")
