"""Train ACT-VAE, called as ComfyUI calls it."""

from __future__ import annotations

import pytest
import torch
from act_vae_data import put_poses
from torch.testing import assert_close

from flexiact_core.act_vae.figures import ACTIONS
from flexiact_core.act_vae.loading import load_act_vae
from flexiact_core.errors import FileError, SettingError

training = pytest.importorskip("flexiact_pack.nodes.act_vae_training", reason="needs ComfyUI: run `make test`")

pytestmark = pytest.mark.usefixtures("model_folders", "running_node")
SETTINGS = {
    "data": "", "actions": "", "name": "mine", "steps": 4, "learning_rate": 0.002, "batch_size": 4, "latent": 16,
    "pose_steps": 4, "stride": 1, "mirror": True, "kl": 0.002, "measure_every": 0, "checkpoint_every": 2,
    "resume": True, "seed": 3,
}  # fmt: skip


@torch.inference_mode()
def learn(**changes):
    return training.TrainACTVAE.execute(**SETTINGS | changes).args


def weights(act_vae) -> dict[str, torch.Tensor]:
    return act_vae.model.predictor.state_dict()


def test_figures_are_learned_from_without_any_data_and_the_model_is_saved(model_folders, said):
    act_vae, curve, text = learn()
    assert act_vae.model.actions == tuple(ACTIONS) and act_vae.model.steps == 8
    saved = load_act_vae(model_folders / "act_vae" / "trained" / "mine.safetensors")
    for key, value in saved.predictor.state_dict().items():
        assert_close(value, weights(act_vae)[key])
    assert (saved.actions, saved.steps, saved.margin) == (act_vae.model.actions, 8, act_vae.model.margin)
    assert curve.ndim == 4 and "procedural figures" in text and "standing still" in text
    assert said[-1].startswith("Saved as mine.safetensors")


def test_what_was_learned_is_in_the_list_and_a_checkpoint_is_not():
    from flexiact_pack.nodes.act_vae import find_models

    learn()
    assert list(find_models()) == ["trained/mine.safetensors"]


def test_poses_of_a_users_own_actions_are_learned(tmp_path, said):
    folder = put_poses(tmp_path)
    act_vae, _, text = learn(data=str(folder), actions="wave, bow")
    assert act_vae.model.actions == ("wave", "bow") and act_vae.model.steps == 4
    assert "clips of 2 videos to learn from" in text


def test_cancel_keeps_what_was_learned_and_the_same_settings_go_on(said, monkeypatch):
    from flexiact_pack.nodes.host import progress

    whole, *_ = learn(name="whole")
    step = progress.TrainingProgress.step

    def cancel(self, done, loss):
        step(self, done, loss)
        if done == 3:
            raise progress.interrupt()()

    with monkeypatch.context() as patch:
        patch.setattr(progress.TrainingProgress, "step", cancel)
        stopped, *_ = learn()
    assert any("stopped at step 3 of 4" in line for line in said)
    assert training.TrainACTVAE.fingerprint_inputs(name="mine", steps=4, resume=True) != ""
    finished, *_ = learn()
    for key, value in weights(whole).items():
        assert torch.equal(weights(finished)[key], value)
    assert any(not torch.equal(weights(stopped)[key], value) for key, value in weights(whole).items())


def test_measures_are_said_on_the_way_and_change_nothing(said, monkeypatch):
    from flexiact_pack.nodes.host import progress

    plain, *_ = learn(name="plain")
    shown = []
    monkeypatch.setattr(progress.TrainingProgress, "show_sample", lambda self, frames: shown.append(frames))
    measured, *_ = learn(measure_every=2)
    assert len(shown) == 1 and shown[0].shape == (9, 128, 128, 3)
    assert any(line.startswith("step 2, held out: error ") for line in said)
    for key, value in weights(plain).items():
        assert torch.equal(weights(measured)[key], value)


def test_a_model_is_gone_on_from_under_another_checkpoint(said):
    first, *_ = learn()
    second, *_ = learn(start_from=first, learning_rate=1e-9)
    for key, value in weights(second).items():
        assert_close(value, weights(first)[key], atol=1e-6, rtol=0)
    with pytest.raises(SettingError, match="a latent of 16; 9 and 32"):
        learn(start_from=first, latent=32)


def test_settings_and_data_are_checked_before_a_model_is_loaded(tmp_path):
    with pytest.raises(SettingError, match="The method uses 0.0002"):
        training.TrainACTVAE.check_lazy_status(**SETTINGS | {"learning_rate": 0.0, "start_from": None})
    assert training.TrainACTVAE.check_lazy_status(**SETTINGS, start_from=None) == ["start_from"]
    assert training.TrainACTVAE.check_lazy_status(**SETTINGS) == []
    with pytest.raises(FileError, match="no such file or folder"):
        learn(data=str(tmp_path / "none"))


def test_a_name_that_another_training_has_gets_a_number(model_folders, said):
    learn()
    learn(seed=4)
    assert {path.name for path in (model_folders / "act_vae" / "trained").iterdir()} == {
        "mine.safetensors", "mine_2.safetensors"
    }  # fmt: skip
