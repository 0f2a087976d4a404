import pytest
import torch

from flexiact_core.world.making.base_training import MOVING_WEIGHT, BaseTask, moving_weight, training_clip
from flexiact_core.world.scenes import COLOURS, HELD_OUT_PAIRS, SHAPES


def test_cells_that_move_count_more_and_the_mean_is_one():
    video = torch.zeros(1, 5, 16, 8, 8)
    video[:, 1:, :, 2, 3] = 2.0
    weight = moving_weight(video)
    assert weight.shape == (1, 5, 1, 8, 8)
    assert weight.mean().item() == pytest.approx(1.0)
    moving, still = weight[0, 2, 0, 2, 3], weight[0, 2, 0, 0, 0]
    assert 0.9 * MOVING_WEIGHT < moving / still < MOVING_WEIGHT
    assert weight[0, 0, 0, 2, 3] == still


def test_a_still_clip_counts_the_same_everywhere():
    torch.testing.assert_close(moving_weight(torch.ones(2, 5, 16, 8, 8)), torch.ones(2, 5, 1, 8, 8))


def test_the_true_velocity_guesses_the_video_and_only_clips_with_an_action_are_guessed(tmp_path, monkeypatch):
    video = torch.randn(4, 5, 16, 8, 8).half()
    plain = torch.zeros(4, 16, dtype=torch.long)
    named = plain.clone()
    named[1, 3] = named[2, 3] = 1
    columns = {"video_mean": video, "image_mean": video[:, :1], "plain": plain, "named": named}
    columns |= {"video_std": torch.zeros_like(video), "image_std": torch.zeros_like(video[:, :1])}
    torch.save(columns, tmp_path / "part_000000.pt")
    task = BaseTask(tmp_path, 2.0, batch_size=8)
    task.prepare("cpu")

    def velocity(module, noisy, image, tokens, timesteps):
        signal, noise = (table[timesteps][:, None, None, None, None] for table in (task.sqrt_abar, task.sqrt_rest))
        truth = 2.0 * video[[int(row) for row in rows_of(image)]].float()
        return (signal * noisy - truth) / noise

    def rows_of(image):
        return (image[:, None] - 2.0 * video[None, :, :1].float()).abs().flatten(2).sum(-1).argmin(1)

    monkeypatch.setattr(task, "_velocity", velocity)
    rows, guessed = task.guess(torch.nn.Module(), torch.Generator().manual_seed(0))
    assert set(rows.tolist()) == {1, 2}
    torch.testing.assert_close(guessed, 2.0 * video[rows].float(), rtol=1e-3, atol=1e-3, check_dtype=False)


def test_no_training_clip_shows_a_held_out_pair_in_a_colour_with_or_without_a_name():
    scenes = [training_clip(index)[0] for index in range(400)]
    mixed = [scene for scene in scenes if scene.mixed]
    assert 0.3 < len(mixed) / len(scenes) < 0.5
    held_out = {shape: [COLOURS[colour] for one, colour in HELD_OUT_PAIRS if one == shape] for shape in SHAPES}
    for scene in scenes:
        apart = [sum((a - b) ** 2 for a, b in zip(scene.rgb, colour)) ** 0.5 for colour in held_out[scene.shape]]
        assert min(apart) > 0.19
