"""How near a video is to the one it should be.

Shape letters: T frames, H and W height and width in pixels.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import FileError, SettingError, ShapeError

# What torchvision calls the weights that LPIPS compares features of.
LPIPS_FILE = "alexnet-owt-7be5be79.pth"
# Halved four times by AlexNet, and still a patch left.
LPIPS_SMALLEST_PX = 31
# The Gaussian window of SSIM.
SSIM_WINDOW_PX = 11


def psnr_db(error: float) -> float:
    """Decibel of a mean squared error of values in 0..1 against their full range; infinite for none."""
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def video_psnr_db(frames: np.ndarray, exact: np.ndarray) -> float:
    """Decibel of frames in 0..1 against those they should be, of the same shape; infinite for equal ones."""
    return psnr_db(float(np.square(frames - exact).mean()))


def has_torchmetrics() -> bool:
    """Whether the package that SSIM and LPIPS are from is there."""
    return importlib.util.find_spec("torchmetrics") is not None


def lpips_weights() -> Path:
    """Where LPIPS' weights lie, or have to lie: torch's own folder of downloads. Nothing is fetched."""
    return Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_FILE


def video_ssim(frames: Tensor, exact: Tensor) -> float:
    """Structural similarity, -1..1, of frames (T, H, W, 3) in 0..1 to those they should be, the mean over all.

    Raises SettingError if torchmetrics is not installed, ShapeError for frames of other sizes or under 11 pixels.
    Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004.
    """
    _check_package("SSIM")
    from torchmetrics.functional.image import structural_similarity_index_measure

    return float(structural_similarity_index_measure(*_pair("SSIM", frames, exact, SSIM_WINDOW_PX), data_range=1.0))


@torch.no_grad()
def video_lpips(frames: Tensor, exact: Tensor) -> float:
    """Perceptual distance, 0 for equal frames, of frames (T, H, W, 3) in 0..1 to those they should be; of AlexNet.

    Raises SettingError if torchmetrics is not installed, FileError if lpips_weights() is not there, ShapeError for
    frames of other sizes or under 31 pixels.
    Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018.
    """
    _check_package("LPIPS")
    if not lpips_weights().is_file():
        raise FileError(f"LPIPS: {LPIPS_FILE} of torchvision is not there. Put it into torch's hub/checkpoints folder.")
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    pair = _pair("LPIPS", frames, exact, LPIPS_SMALLEST_PX)
    return float(learned_perceptual_image_patch_similarity(*pair, net_type="alex", normalize=True))


def _check_package(what: str) -> None:
    if not has_torchmetrics():
        raise SettingError(f"{what}: the Python package torchmetrics is needed. Install it: pip install torchmetrics")


def _pair(what: str, frames: Tensor, exact: Tensor, smallest_px: int) -> tuple[Tensor, Tensor]:
    if frames.shape != exact.shape:
        raise ShapeError(f"{what}: frames of {list(exact.shape)} expected, {list(frames.shape)} found.")
    if min(frames.shape[1:3]) < smallest_px:
        raise ShapeError(f"{what}: at least {smallest_px}x{smallest_px} pixels are needed.")
    return frames.permute(0, 3, 1, 2).float(), exact.permute(0, 3, 1, 2).float()
