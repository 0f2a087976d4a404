"""What the small people's transformer is trained on, and how it begins."""

import pytest
import torch

from flexiact_core.cogvideox.family import DYNAMICTRL, family_of
from flexiact_core.world.actors import actor_vocabulary
from flexiact_core.world.making.actor_training import SAID, ActorTask, actor_clip, encode_actors
from flexiact_core.world.making.models import make_posed_transformer, make_tokenizer, make_vae


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("actors")
    encode_actors(make_vae().eval(), folder, num_clips=3, part_size=2)
    return folder


def open_task(data, batch_size):
    """A task and its module, whose weights that begin at zero are drawn, so that everything reaches the loss."""
    task = ActorTask(data, 1.0, batch_size=batch_size)
    task.prepare("cpu")
    module = task.make_module()
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return task, module


def test_clips_are_encoded_with_their_poses_first_frames_and_four_captions(data):
    parts = [torch.load(path, weights_only=True) for path in sorted(data.glob("part_*.pt"))]
    assert [len(part["said"]) for part in parts] == [2, 1]
    first = parts[0]
    assert first["video_mean"].shape == first["pose_mean"].shape == (2, 6, 16, 8, 8)
    assert first["image_mean"].shape == (2, 1, 16, 8, 8) and first["said"].shape == (2, len(SAID), 16)
    tokenizer = make_tokenizer(actor_vocabulary())
    actor, _, action, camera = next(clip for clip in map(actor_clip, range(50)) if clip[2] and clip[3])
    assert action and camera and actor.shirt in tokenizer.decode(first["said"][0, 0]) + actor.shirt


def test_a_part_that_exists_is_kept(data):
    (path, *_) = sorted(data.glob("part_*.pt"))
    before = path.stat().st_mtime_ns
    encode_actors(make_vae(), data, num_clips=2, part_size=2)
    assert path.stat().st_mtime_ns == before


def test_a_fresh_transformer_is_of_dynamictrls_family_and_its_pose_norms_are_open():
    transformer = make_posed_transformer()
    assert family_of(transformer.config) is DYNAMICTRL
    for block in transformer.transformer_blocks:
        assert (block.control_norm1["norm"].weight == 1).all() and block.control_norm1["linear"].weight.any()
    assert not transformer.proj_out.weight.any()


def test_a_step_reaches_every_weight_once_the_first_has_opened_the_way(data):
    task, module = open_task(data, batch_size=8)
    task.loss(module, torch.Generator().manual_seed(0), 0.0).backward()
    without = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    assert not without
    assert module["transformer"].transformer_blocks[3].control_norm1["linear"].weight.grad.any()


def test_poses_that_are_left_out_change_nothing(data, monkeypatch):
    from flexiact_core.world.making import actor_training

    task, module = open_task(data, batch_size=4)

    def loss(share):
        monkeypatch.setattr(actor_training, "NO_POSE", share)
        with torch.no_grad():
            return float(task.loss(module, torch.Generator().manual_seed(0), 0.0))

    told, untold = loss(0.0), loss(1.0)
    task.data["pose_mean"] = torch.zeros_like(task.data["pose_mean"])
    assert told != loss(0.0) and untold == loss(1.0)
