"""ACT-VAE's nodes, called as ComfyUI calls them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from act_vae_data import make_parts, put_list, put_release
from torch.testing import assert_close

from flexiact_core.act_vae.build import SHIPPED
from flexiact_core.act_vae.figures import ACTIONS
from flexiact_core.act_vae.loading import load_act_vae, make_model, save_act_vae
from flexiact_core.act_vae.model import PENN_ACTIONS
from flexiact_core.act_vae.predict import HowTo, predict_poses
from flexiact_core.act_vae.source import standing_source
from flexiact_core.errors import FileError, FlexiActError, SettingError
from flexiact_core.poses.keypoints import read_openpose, write_openpose

nodes = pytest.importorskip("flexiact_pack.nodes.act_vae", reason="needs ComfyUI: run `make test`")

images = pytest.importorskip("flexiact_pack.nodes.act_vae_images")

pytestmark = pytest.mark.usefixtures("running_node", "said")
HOW = {
    "steps": 0, "chain": False, "variants": 1, "temperature": 1.0, "num_frames": 0, "fps": 8.0, "person": "largest",
    "width": 128, "height": 128, "seed": 5,
}  # fmt: skip


@pytest.fixture
def shipped(model_folders):
    shutil.copy(SHIPPED, model_folders / "act_vae" / "figures.safetensors")
    return load("figures.safetensors")


@pytest.fixture
def released(model_folders):
    put_release(model_folders / "act_vae" / "pretrain")
    return load("pretrain")


@torch.inference_mode()
def load(name: str):
    return nodes.LoadACTVAE.execute(name).args[0]


@torch.inference_mode()
def predict(act_vae, action="squat", **changes):
    return nodes.PredictActionPoses.execute(act_vae, action, **HOW | changes).args


def options(node: type, name: str) -> list[str]:
    return next(item.options for item in node.define_schema().inputs if item.id == name)


def test_the_list_shows_what_can_be_loaded_and_a_fresh_install_is_not_empty(model_folders):
    from flexiact_pack.nodes.host.folders import NONE_FOUND

    assert options(nodes.LoadACTVAE, "model") == [NONE_FOUND]
    put_release(model_folders / "act_vae" / "pretrain")
    shutil.copy(SHIPPED, model_folders / "act_vae" / "figures.safetensors")
    (model_folders / "act_vae" / "broken.safetensors").write_bytes(b"broken")
    assert {"figures.safetensors", "pretrain"} <= set(options(nodes.LoadACTVAE, "model"))
    assert nodes.LoadACTVAE.validate_inputs("pretrain") is True
    sentence = nodes.LoadACTVAE.validate_inputs("gone.safetensors")
    assert "'gone.safetensors' is not in" in sentence
    with pytest.raises(FileError, match="gone.safetensors"):
        load("gone.safetensors")


def test_the_shipped_model_comes_with_the_pack():
    from flexiact_pack.nodes import SHIPPED as folder

    assert SHIPPED.parent == folder / nodes.MODELS.name


def test_actions_are_those_of_the_figures_the_release_and_every_model_there(model_folders):
    model = make_model(make_parts(2), actions=("moonwalk", "walk"))
    save_act_vae(model, model_folders / "act_vae" / "mine.safetensors")
    assert options(nodes.PredictActionPoses, "action") == [*ACTIONS, *PENN_ACTIONS[:5], *PENN_ACTIONS[6:7],
                                                           *PENN_ACTIONS[8:], "moonwalk"]  # fmt: skip
    assert nodes.PredictActionPoses.validate_inputs("anything") is True


def test_a_release_loads_with_its_image_network_in_comfyuis_memory(released):
    assert released.model.actions == PENN_ACTIONS and released.painter.model["model"] is released.model.generator


def test_poses_are_the_cores_one_clip_for_each_variant(shipped):
    poses, frames, fps, strips, text = predict(shipped, variants=3, num_frames=13)
    core = predict_poses(shipped.model, standing_source(128, 128), "squat", HowTo(variants=3, num_frames=13, seed=5))
    assert len(poses) == len(frames) == 3 and fps == 8.0
    for value, expected in zip(poses, core.variants):
        assert value == write_openpose(expected)
    assert frames[0].shape == (13, 128, 128, 3) and strips.shape[0] == 1
    assert 0 < frames[0].max() <= 1
    assert text == "\n".join(core.notes) and "standing figure" in text


def test_a_pose_that_is_connected_is_where_the_clip_begins(shipped):
    pose = write_openpose(predict_poses(shipped.model, standing_source(300, 200), "wave").variants[0])
    (poses,), *_ = predict(shipped, pose=json.dumps(pose))
    assert_close(read_openpose(poses, 8.0).points[0], read_openpose(pose, 8.0).points[0], atol=1e-3, rtol=0)
    assert poses[0]["canvas_width"] == 300 and poses[0]["canvas_height"] == 200


def test_an_action_of_another_model_is_a_sentence(shipped):
    with pytest.raises(SettingError, match="figures does not have it. Choose one of walk, "):
        predict(shipped, "tennis_serve")


def test_pictures_need_an_image_network(shipped):
    (poses,), *_ = predict(shipped)
    with pytest.raises(SettingError, match="figures has no pose-to-image network"):
        images.PoseToImage.execute(shipped, torch.zeros(1, 128, 128, 3), poses, poses, "squat", 8.0)


@torch.inference_mode()
def test_a_person_is_drawn_again_in_each_pose(released, said):
    (poses,), *_ = predict(released)
    # Two pictures, one of them transparent: the first is taken.
    image = torch.rand(2, 128, 128, 4)
    frames, video = images.PoseToImage.execute(released, image, poses, poses, "squat", 12.0).args
    assert frames.shape == (5, 128, 128, 3)
    assert said[-1] == "2 pictures: the first one is drawn in other poses"
    components = video.get_components()
    assert components.frame_rate == 12 and components.images.shape == frames.shape


@torch.inference_mode()
def test_a_row_of_the_authors_list_is_compared(released, tmp_path, shipped):
    path, pictures = put_list(tmp_path)
    (picture,) = images.CompareACTVAERow.execute(released, str(path), str(pictures), 2, 0).args
    assert picture.shape == (1, 3 * 132, 4 * 132, 3)
    with pytest.raises(FlexiActError, match="no pose-to-image network"):
        images.CompareACTVAERow.execute(shipped, str(path), str(pictures), 2, 0)


@torch.inference_mode()
def test_measures_stand_beside_their_controls(shipped, monkeypatch):
    monkeypatch.setattr("flexiact_core.act_vae.report.HELD_OUT_CLIPS", 40)
    error, best, nearest, text, picture = nodes.MeasurePoses.execute([shipped], ["walk"], [0]).args
    assert 0 < best < error and nearest in ACTIONS and picture.ndim == 4
    assert text.count("standing still") == 3 and text.count("another action's name") == 2


@torch.inference_mode()
def test_all_variants_of_a_prediction_are_measured_against_the_truth(shipped):
    poses, *_ = predict(shipped, variants=3)
    error, best, nearest, text, _ = nodes.MeasurePoses.execute([shipped], ["squat"], [0], [poses[1]], poses).args
    assert best == pytest.approx(0, abs=1e-3) and error > 0 and nearest == "squat"
    assert "given poses, 3 variant(s)" in text


def test_loaded_weights_can_be_learned_on(shipped):
    assert not any(weight.is_inference() for weight in load_act_vae(SHIPPED).predictor.parameters())
    assert not any(weight.is_inference() for weight in shipped.model.predictor.parameters())
