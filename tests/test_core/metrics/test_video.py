import numpy as np
import pytest
import torch

from flexiact_core.errors import FileError, SettingError, ShapeError
from flexiact_core.metrics import video
from flexiact_core.metrics.video import video_lpips, video_psnr_db, video_ssim


@pytest.fixture
def frames():
    return torch.rand(2, 40, 48, 3, generator=torch.Generator().manual_seed(0))


def test_psnr_is_counted_from_full_range():
    exact = np.full((2, 4, 4, 3), 0.5)
    assert video_psnr_db(exact, exact) == float("inf")
    assert video_psnr_db(exact + 0.1, exact) == pytest.approx(20)
    assert video_psnr_db(1 - exact * 0, exact * 0) == pytest.approx(0)


def test_ssim_is_the_formula(frames):
    pytest.importorskip("torchmetrics")
    other = (frames * 0.7 + 0.1).clamp(0, 1)
    # Wang et al., equation 13, in windows of 11 pixels weighted by a Gaussian of 1.5, as sums of products.
    ramp = torch.exp(-((torch.arange(11.0) - 5) ** 2) / (2 * 1.5**2))
    window = (ramp[:, None] * ramp / ramp.sum() ** 2).double()

    def local(values):
        parts = values.permute(0, 3, 1, 2).double().unfold(2, 11, 1).unfold(3, 11, 1)
        return (parts * window).sum((-2, -1))

    mean_a, mean_b = local(frames), local(other)
    spread_a, spread_b = local(frames**2) - mean_a**2, local(other**2) - mean_b**2
    shared = local(frames * other) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * shared + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (spread_a + spread_b + c2)
    # torchmetrics counts windows over the border, too: they lie within a few thousandths here.
    assert video_ssim(other, frames) == pytest.approx(similarity.mean().item(), abs=0.01)
    assert video_ssim(frames, frames) == pytest.approx(1, abs=1e-6)


def test_lpips_takes_weights_that_are_there_and_fetches_none(frames, tmp_path, monkeypatch):
    pytest.importorskip("torchmetrics")
    import torchvision

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileError, match="alexnet-owt-7be5be79.pth"):
        video_lpips(frames, frames)
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = torchvision.models.alexnet().state_dict()
    # The classifier has no part in it: one number, stretched, so that the file is small.
    weights = {
        name: torch.randn(value.shape) / 20 if name.startswith("features") else torch.zeros(1).expand(value.shape)
        for name, value in shapes.items()
    }
    (tmp_path / "checkpoints").mkdir()
    torch.save(weights, video.lpips_weights())
    assert video_lpips(frames, frames) == pytest.approx(0, abs=1e-6)
    nearer, further = (video_lpips(frames * (1 - share), frames) for share in (0.1, 0.5))
    assert 0 < nearer < further


def test_what_is_missing_or_does_not_fit_is_named(frames, monkeypatch):
    with pytest.raises(ShapeError, match="expected"):
        video_ssim(frames[:1], frames)
    with pytest.raises(ShapeError, match="31x31"):
        video._pair("LPIPS", frames[:, :20], frames[:, :20], video.LPIPS_SMALLEST_PX)
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="pip install torchmetrics"):
        video_ssim(frames, frames)
