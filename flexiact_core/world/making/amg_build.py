"""The stages that make the small AMG, from nothing: its VAE, its data, its UNet and text encoder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import shipped
from . import hogwild
from .amg_models import make_amg_vae, save_amg
from .amg_training import AMGTask, AMGVAETask, encode_takes, measure_amg_vae
from .vae_training import read_vae

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def train_amg_vae(work: Path, chosen: argparse.Namespace) -> None:
    """Trains the VAE into work/amg_vae.pt."""
    plan = hogwild.plan_of(
        chosen, steps=chosen.amg_vae_steps, minutes=chosen.amg_vae_minutes, learning_rate=chosen.amg_vae_rate,
        ema_decay=0.99,
    )  # fmt: skip
    hogwild.run(AMGVAETask(), plan, work / "amg_vae.pt")


def trained_amg_vae(work: Path) -> AutoencoderKL:
    """The VAE of work/amg_vae.pt, float32, with its scaling factor set."""
    return read_vae(work / "amg_vae.pt", work / "amg_vae_scale.json", measure_amg_vae, make_amg_vae)


def build_amg_data(work: Path, chosen: argparse.Namespace) -> None:
    """Encodes the training takes into work/amg_data."""
    encode_takes(
        trained_amg_vae(work), work / "amg_data", num_clips=chosen.amg_clips, device=chosen.device,
        workers=chosen.workers,
    )  # fmt: skip


def build_amg(work: Path, chosen: argparse.Namespace) -> None:
    """Trains UNet and text encoder into work/amg.pt, and writes the whole model."""
    task = AMGTask(work / "amg_data", trained_amg_vae(work).config.scaling_factor, chosen.batch_size)
    plan = hogwild.plan_of(
        chosen, steps=chosen.amg_steps, minutes=chosen.amg_minutes, learning_rate=chosen.amg_rate, ema_decay=0.99
    )
    hogwild.run(task, plan, work / "amg.pt")
    export_amg(work, chosen.out)


def export_amg(work: Path, out: Path) -> None:
    """Writes what work/amg_vae.pt and work/amg.pt hold now as the small AMG of a weights folder."""
    module = AMGTask(work, 1.0).make_module()
    module.load_state_dict(torch.load(work / "amg.pt", weights_only=True)["ema"])
    save_amg(
        shipped.amg_folder(out), vae=trained_amg_vae(work), unet=module["unet"], text_encoder=module["text_encoder"]
    )
