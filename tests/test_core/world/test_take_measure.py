"""What is read off a video of a take, where the truth is known."""

from dataclasses import replace

import torch

from flexiact_core.world.take_measure import measure_take, name_of_scene, silhouette
from flexiact_core.world.takes import SCENES, by_camera, film, render_avatar, render_take, sample_take, take_mask


def test_true_videos_overlap_their_own_outline_and_not_another_cameras():
    for seed in range(4):
        take = replace(sample_take(seed), shot=film("wave", "right"))
        frames = render_take(take)
        own, other = measure_take(frames, take), measure_take(frames, by_camera(take, "left"))
        assert own.overlap > 0.8 and own.overlap - other.overlap > 0.5


def test_each_scene_is_named_by_its_ground_whoever_stands_before_it():
    for seed, scene in enumerate(SCENES):
        assert name_of_scene(render_take(replace(sample_take(seed), scene=scene))) == scene


def test_a_ground_that_is_no_scenes_has_no_name():
    assert name_of_scene(render_avatar(sample_take(0))) == ""
    assert name_of_scene(torch.full((8, 64, 64, 3), 0.5) * torch.tensor([1.0, 0.2, 1.6])) == ""


def test_an_empty_scene_has_no_outline():
    take = sample_take(1)
    scene = torch.tensor(SCENES[take.scene]).expand(8, 64, 64, 3)
    assert name_of_scene(scene) == take.scene
    assert not silhouette(scene, take).any()
    assert take_mask(take).any()
