"""The stages that make the people's base: its VAE, its data, its transformer and text encoder.

The VAE starts from the small world's of the same weights folder, which draws soft shapes already.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import shipped
from ..actors import actor_vocabulary
from . import hogwild
from .actor_training import ActorTask, encode_actors
from .actor_vae_training import ActorVAETask, actor_latent_scale, measure_actor_vae
from .models import save_base
from .vae_training import read_vae

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX


def train_actor_vae(work: Path, chosen: argparse.Namespace) -> None:
    """Trains the people's VAE into work/actor_vae.pt, from the small world's in the weights folder."""
    from diffusers import AutoencoderKLCogVideoX

    plan = hogwild.plan_of(
        chosen, steps=chosen.actor_vae_steps, minutes=chosen.actor_vae_minutes, learning_rate=1e-3, ema_decay=0.99
    )
    start = AutoencoderKLCogVideoX.from_pretrained(shipped.base_folder(chosen.out) / "vae").float().state_dict()
    hogwild.run(ActorVAETask(), plan, work / "actor_vae.pt", start)


def trained_actor_vae(work: Path) -> AutoencoderKLCogVideoX:
    """The VAE of work/actor_vae.pt, float32, with its scaling factor set."""
    return read_vae(
        work / "actor_vae.pt",
        work / "actor_vae_scale.json",
        lambda vae: {"scaling_factor": actor_latent_scale(vae)} | measure_actor_vae(vae),
    )


def build_actor_data(work: Path, chosen: argparse.Namespace) -> None:
    """Encodes the people's training clips into work/actor_data."""
    encode_actors(
        trained_actor_vae(work), work / "actor_data", num_clips=chosen.actor_clips, device=chosen.device,
        workers=chosen.workers,
    )  # fmt: skip


def build_actor_base(work: Path, chosen: argparse.Namespace) -> None:
    """Trains the people's transformer and text encoder, and writes the base."""
    vae = trained_actor_vae(work)
    task = ActorTask(work / "actor_data", vae.config.scaling_factor, chosen.batch_size)
    plan = hogwild.plan_of(
        chosen, steps=chosen.actor_base_steps, minutes=chosen.actor_base_minutes, learning_rate=1e-3, ema_decay=0.995,
        flat=0.4,
    )  # fmt: skip
    hogwild.run(task, plan, work / "actor_base.pt")
    export_actors(work, chosen.out)


def export_actors(work: Path, out: Path) -> None:
    """Writes what work/actor_vae.pt and work/actor_base.pt hold now as the people's base of a weights folder."""
    module = ActorTask(work, 1.0).make_module()
    module.load_state_dict(torch.load(work / "actor_base.pt", weights_only=True)["ema"])
    save_base(
        shipped.actors_folder(out),
        vae=trained_actor_vae(work),
        transformer=module["transformer"],
        text_encoder=module["text_encoder"],
        words=actor_vocabulary(),
    )
