"""The stages that make the people's base: its VAE, its data, its transformer and text encoder.

The VAE starts from the small world's shipped one, which draws soft shapes already.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import shipped
from ..actors import actor_vocabulary
from . import hogwild
from .actor_training import ActorTask, encode_actors
from .actor_vae_training import ActorVAETask, actor_latent_scale, measure_actor_vae
from .models import make_vae, save_base

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX

log = logging.getLogger(__name__)


def train_actor_vae(work: Path, chosen: argparse.Namespace) -> None:
    """Trains the people's VAE into work/actor_vae.pt, from the shipped small world's."""
    from diffusers import AutoencoderKLCogVideoX

    plan = _plan(chosen, chosen.actor_vae_steps, chosen.actor_vae_minutes, learning_rate=1e-3, ema_decay=0.99)
    start = AutoencoderKLCogVideoX.from_pretrained(shipped.base_folder() / "vae").float().state_dict()
    hogwild.run(ActorVAETask(), plan, work / "actor_vae.pt", start)


def trained_actor_vae(work: Path) -> AutoencoderKLCogVideoX:
    """The VAE of work/actor_vae.pt, float32, with its scaling factor set."""
    vae = make_vae()
    vae.load_state_dict(torch.load(work / "actor_vae.pt", weights_only=True)["ema"])
    vae.eval().requires_grad_(False)
    scale_file = work / "actor_vae_scale.json"
    if not scale_file.exists():
        half = copy.deepcopy(vae).to(hogwild.faster_format())
        measured = {"scaling_factor": actor_latent_scale(half)} | measure_actor_vae(half)
        scale_file.write_text(json.dumps(measured))
        log.info("actor vae: %s", measured)
    vae.register_to_config(scaling_factor=json.loads(scale_file.read_text())["scaling_factor"])
    return vae


def build_actor_data(work: Path, chosen: argparse.Namespace) -> None:
    """Encodes the people's training clips into work/actor_data."""
    vae = trained_actor_vae(work).to(chosen.device, hogwild.faster_format(chosen.device))
    workers = chosen.workers if chosen.device == "cpu" else 1
    arguments = (vae, work / "actor_data", chosen.actor_clips, workers)
    if workers == 1:
        _encode_share(0, *arguments)
    else:
        torch.multiprocessing.spawn(_encode_share, args=arguments, nprocs=workers)


def _encode_share(rank: int, vae: AutoencoderKLCogVideoX, folder: Path, num_clips: int, workers: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1 if next(vae.parameters()).device.type == "cpu" else 4)
    encode_actors(vae, folder, num_clips=num_clips, rank=rank, workers=workers)


def build_actor_base(work: Path, chosen: argparse.Namespace) -> None:
    """Trains the people's transformer and text encoder, and writes the base."""
    vae = trained_actor_vae(work)
    task = ActorTask(work / "actor_data", vae.config.scaling_factor, chosen.batch_size)
    plan = _plan(chosen, chosen.actor_base_steps, chosen.actor_base_minutes, learning_rate=1.2e-3, ema_decay=0.99)
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


def _plan(chosen: argparse.Namespace, steps: int, minutes: float | None, **schedule: float) -> hogwild.Plan:
    return hogwild.Plan(
        steps=steps, minutes=minutes, workers=chosen.workers, device=chosen.device, nice=chosen.nice, **schedule
    )
