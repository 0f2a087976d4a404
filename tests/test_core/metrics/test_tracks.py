"""Points that are followed: against motions that are known, and what ComfyUI's TRACKS may hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from flexiact_core.errors import SettingError, ShapeError
from flexiact_core.metrics import tracks as tracking
from flexiact_core.metrics.tracks import read_tracks, track_points


def waves(num_frames: int, step: tuple[float, float], height: int = 60, width: int = 80) -> torch.Tensor:
    """A smooth pattern that moves by `step` pixels a frame: (T, height, width, 3)."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    frames = []
    for index in range(num_frames):
        x, y = across - step[0] * index, down - step[1] * index
        gray = 0.5 + 0.2 * np.sin(x / 5) * np.cos(y / 7) + 0.2 * np.sin((x + y) / 11)
        frames.append(np.repeat(gray[..., None], 3, -1))
    return torch.from_numpy(np.stack(frames)).float()


@pytest.mark.parametrize("step", [(1.5, 0.0), (-0.7, 1.1)])
def test_points_follow_a_known_motion(step):
    pytest.importorskip("cv2")
    followed = track_points(waves(7, step))
    assert (followed.width_px, followed.height_px, followed.num_frames) == (80, 60, 7)
    kept = followed.seen.all(0)
    assert kept.float().mean() > 0.5
    moved = (followed.paths[1:] - followed.paths[:-1])[:, kept]
    assert (moved - torch.tensor(step)).norm(dim=-1).median() < 0.05


def test_large_frames_are_tracked_small_and_told_in_their_own_pixels():
    pytest.importorskip("cv2")
    large = torch.nn.functional.interpolate(waves(3, (1.0, 0)).permute(0, 3, 1, 2), scale_factor=10, mode="bicubic")
    followed = track_points(large.permute(0, 2, 3, 1).clamp(0, 1))
    moved = (followed.paths[1:] - followed.paths[:-1])[:, followed.seen.all(0)]
    assert (moved - torch.tensor((10.0, 0))).norm(dim=-1).median() < 0.5


def test_points_that_leave_the_picture_are_lost():
    pytest.importorskip("cv2")
    followed = track_points(waves(9, (4.0, 0)))
    assert followed.seen[4].all() and not followed.seen[-1].all()
    out = followed.paths[-1, :, 0] >= 80
    assert out.any() and not followed.seen[-1][out].any()


def test_without_the_package_it_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="pip install opencv-python-headless"):
        track_points(waves(3, (1, 0)))


def test_one_frame_shows_no_motion():
    pytest.importorskip("cv2")
    with pytest.raises(ShapeError, match="at least 2 frames"):
        track_points(waves(1, (1, 0)))


def test_tracks_of_other_packs_are_read():
    paths = torch.rand(4, 3, 2)
    seen = torch.tensor([[1, 0, 1]] * 4)
    read = read_tracks({"track_path": paths, "track_visibility": seen}, "tracks", 64, 48)
    assert_close(read.paths, paths)
    assert read.seen.dtype == torch.bool and read.seen[0].tolist() == [True, False, True]
    # A visibility of whole frames, as nodes with a mask give it; none at all; and a batch of one.
    for value in ({"track_visibility": torch.ones(4, 1)}, {}, {"track_path": paths[None]}):
        assert read_tracks({"track_path": paths} | value, "tracks", 64, 48).seen.all()


@pytest.mark.parametrize(
    "value",
    [
        {},
        None,
        {"track_path": torch.zeros(4, 3)},
        {"track_path": torch.zeros(4, 3, 3)},
        {"track_path": torch.zeros(4, 3, 2), "track_visibility": torch.ones(3, 3)},
        {"track_path": torch.full((4, 3, 2), math.nan)},
    ],
)
def test_what_are_no_tracks_is_refused(value):
    with pytest.raises(ShapeError, match="reference_tracks"):
        read_tracks(value, "reference_tracks", 64, 48)
