"""All weights of the small world from nothing: `python -m flexiact_core.world.making.build`.

Stages: vae, data, base, decoder, refadapter, fae; for the people actor_vae, actor_data, actor_base, actor_action;
and for AMG amg_vae, amg_data, amg_unet. Every stage resumes where it was stopped; a stage that is done is skipped.
Checkpoints and data lie in the folder --work, what ships in --out. --start trains on from the base of another weights
folder instead of from nothing. With limits on wall time (--vae-minutes,
--base-minutes and so on) the learning rate falls to the end of the time instead of the last step.
"""

from __future__ import annotations

import argparse
import copy
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import shipped
from ..actions import ACTIONS
from ..scenes import vocabulary
from . import hogwild
from .actor_action import LEARNED, build_actor_actions
from .actor_build import build_actor_base, build_actor_data, train_actor_vae
from .amg_build import build_amg, build_amg_data, train_amg_vae
from .base_training import BaseTask, encode_data, encode_scene
from .models import save_base
from .vae_training import DecoderTask, VAETask, latent_scale, measure_vae, read_vae

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX

log = logging.getLogger(__name__)


def train_vae(work: Path, chosen: argparse.Namespace) -> None:
    """Trains the VAE into work/vae.pt."""
    plan = hogwild.plan_of(
        chosen, steps=chosen.vae_steps, minutes=chosen.vae_minutes, learning_rate=chosen.vae_rate, ema_decay=0.998
    )
    start = None
    if chosen.start:
        from diffusers import AutoencoderKLCogVideoX

        start = AutoencoderKLCogVideoX.from_pretrained(shipped.base_folder(chosen.start) / "vae").float().state_dict()
    hogwild.run(VAETask(trained=start is not None), plan, work / "vae.pt", start)


def train_decoder(work: Path, chosen: argparse.Namespace) -> None:
    """Trains the decoder on into work/decoder.pt, on what work/base.pt guesses, too; the latents are unchanged."""
    plan = hogwild.plan_of(
        chosen, steps=chosen.decoder_steps, minutes=chosen.decoder_minutes, learning_rate=1e-3, ema_decay=0.99,
        warmup_steps=30,
    )  # fmt: skip
    guesses = BaseTask(work / "data", trained_vae(work).config.scaling_factor, 2)
    hogwild.run(DecoderTask(work / "vae.pt", work / "base.pt", guesses), plan, work / "decoder.pt")


def trained_vae(work: Path) -> AutoencoderKLCogVideoX:
    """The VAE of work/decoder.pt or work/vae.pt, float32, with its scaling factor set."""
    trained = work / "decoder.pt" if (work / "decoder.pt").exists() else work / "vae.pt"
    return read_vae(
        trained,
        work / "vae_scale.json",
        lambda vae: {"scaling_factor": latent_scale(vae, 16)} | measure_vae(vae, 12),
    )


def train_base(work: Path, chosen: argparse.Namespace) -> None:
    """Trains transformer and text encoder into work/base.pt."""
    plan = hogwild.plan_of(chosen, steps=chosen.base_steps, minutes=chosen.base_minutes, learning_rate=chosen.base_rate)
    task = BaseTask(work / "data", trained_vae(work).config.scaling_factor, chosen.batch_size)
    start = None
    if chosen.start:
        from diffusers import CogVideoXTransformer3DModel
        from transformers import T5EncoderModel

        folder = shipped.base_folder(chosen.start)
        parts = {
            "transformer": CogVideoXTransformer3DModel.from_pretrained(folder / "transformer"),
            "text_encoder": T5EncoderModel.from_pretrained(folder / "text_encoder"),
        }
        start = torch.nn.ModuleDict(parts).float().state_dict()
    hogwild.run(task, plan, work / "base.pt", start)


def export_base(work: Path, out: Path) -> None:
    """Writes what work/vae.pt and work/base.pt hold now as the base of a weights folder."""
    vae = trained_vae(work)
    module = BaseTask(work, 1.0).make_module()
    module.load_state_dict(torch.load(work / "base.pt", weights_only=True)["ema"])
    save_base(
        shipped.base_folder(out),
        vae=vae,
        transformer=module["transformer"],
        text_encoder=module["text_encoder"],
    )


def build_data(work: Path, chosen: argparse.Namespace) -> None:
    """Encodes the training clips into work/data."""
    encode_data(
        trained_vae(work), work / "data", encode_scene, vocabulary(), num_clips=chosen.clips, device=chosen.device,
        workers=chosen.workers, part_size=512,
    )  # fmt: skip


def build_base(work: Path, chosen: argparse.Namespace) -> None:
    """Trains transformer and text encoder, and writes the base."""
    train_base(work, chosen)
    export_base(work, chosen.out)


def build_decoder(work: Path, chosen: argparse.Namespace) -> None:
    """Trains the decoder on, and writes the base with it."""
    train_decoder(work, chosen)
    log.info("vae: %s", measure_vae(copy.deepcopy(trained_vae(work)).to(hogwild.faster_format()), 12))
    export_base(work, chosen.out)


def build_adapter(work: Path, chosen: argparse.Namespace) -> None:
    """Trains and writes the RefAdapter."""
    from .adapter_training import build_refadapter

    if chosen.fresh:
        shipped.refadapter_path(chosen.out).unlink(missing_ok=True)
    build_refadapter(chosen.out, device=chosen.device, minutes=chosen.refadapter_minutes)


def build_actions(work: Path, chosen: argparse.Namespace) -> None:
    """Learns and writes the FAE of every action."""
    from .adapter_training import build_faes

    if chosen.fresh:
        for action in ACTIONS:
            shipped.fae_path(action, chosen.out).unlink(missing_ok=True)
    build_faes(chosen.out, device=chosen.device, workers=chosen.workers, steps=chosen.fae_steps)


def build_actor_action(work: Path, chosen: argparse.Namespace) -> None:
    """Learns and writes what the people's base learns from a clip: actions, and a move of the camera."""
    if chosen.fresh:
        for name in LEARNED:
            shipped.actor_fae_path(name, chosen.out).unlink(missing_ok=True)
    build_actor_actions(chosen.out, chosen.workers)


STAGES = {
    "vae": train_vae,
    "data": build_data,
    "base": build_base,
    "decoder": build_decoder,
    "refadapter": build_adapter,
    "fae": build_actions,
    "actor_vae": train_actor_vae,
    "actor_data": build_actor_data,
    "actor_base": build_actor_base,
    "actor_action": build_actor_action,
    "amg_vae": train_amg_vae,
    "amg_data": build_amg_data,
    "amg_unet": build_amg,
}


def make_parser() -> argparse.ArgumentParser:
    """The settings that the command takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=shipped.WEIGHTS, help="the weights folder to write")
    add("--work", type=Path, default=Path(".cache/world"), help="checkpoints and data")
    add("--start", type=Path, help="a weights folder whose base to train on from, not from nothing")
    add("--stages", default=",".join(STAGES), help="comma separated: " + ", ".join(STAGES))
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--workers", type=int, default=2, help="processes of one thread each, on a CPU")
    add("--vae-steps", type=int, default=3600, help="per worker")
    add("--vae-minutes", type=float)
    add("--vae-rate", type=float, default=1.5e-3)
    add("--decoder-steps", type=int, default=400, help="per worker")
    add("--decoder-minutes", type=float)
    add("--base-steps", type=int, default=12000, help="per worker")
    add("--base-minutes", type=float)
    add("--base-rate", type=float, default=7e-4)
    add("--batch-size", type=int, default=16)
    add("--clips", type=int, default=12800)
    add("--refadapter-minutes", type=float)
    add("--fae-steps", type=int, default=200, help="at each of two learning rates")
    add("--actor-vae-steps", type=int, default=1200, help="per worker")
    add("--actor-vae-minutes", type=float)
    add("--actor-clips", type=int, default=4096)
    add("--actor-base-steps", type=int, default=15500, help="per worker")
    add("--actor-base-minutes", type=float)
    add("--amg-vae-steps", type=int, default=3000, help="per worker")
    add("--amg-vae-minutes", type=float)
    add("--amg-vae-rate", type=float, default=1.5e-3)
    add("--amg-clips", type=int, default=4096)
    add("--amg-steps", type=int, default=6000, help="per worker")
    add("--amg-minutes", type=float)
    add("--amg-rate", type=float, default=1e-3)
    add("--fresh", action="store_true", help="also make adapters anew whose files exist")
    add("--nice", type=int, default=0)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the stages asked for."""
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    stages = chosen.stages.split(",")
    unknown = set(stages) - set(STAGES)
    if unknown:
        parser.error(f"no stage is called {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}.")
    for stage, run in STAGES.items():
        if stage in stages:
            started = time.monotonic()
            log.info("stage %s", stage)
            run(chosen.work, chosen)
            log.info("stage %s: %.1f minutes", stage, (time.monotonic() - started) / 60)


if __name__ == "__main__":
    main()
