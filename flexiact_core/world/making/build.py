"""All weights of the small world from nothing: `python -m flexiact_core.world.making.build`.

Stages: vae, data, base, decoder, refadapter, fae. Every stage resumes where it was
stopped; a stage that is done is skipped. Checkpoints and data lie in the folder --work,
what ships in --out. --start trains on from the base of another weights folder instead of
from nothing. With limits on wall time (--vae-minutes, --base-minutes and so on) the learning
rate falls to the end of the time instead of the last step.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import shipped
from ..actions import ACTIONS
from . import hogwild
from .base_training import BaseTask, encode_data
from .models import make_vae, save_base
from .vae_training import DecoderTask, VAETask, latent_scale, measure_vae

log = logging.getLogger(__name__)

STAGES = ("vae", "data", "base", "decoder", "refadapter", "fae")


def _plan(chosen, **schedule) -> hogwild.Plan:
    return hogwild.Plan(**schedule, workers=chosen.workers, device=chosen.device, nice=chosen.nice)


def train_vae(work: Path, chosen) -> None:
    """Nothing; trains the VAE into work/vae.pt."""
    plan = _plan(
        chosen, steps=chosen.vae_steps, minutes=chosen.vae_minutes, learning_rate=chosen.vae_rate, ema_decay=0.998
    )
    start = None
    if chosen.start:
        from diffusers import AutoencoderKLCogVideoX

        start = AutoencoderKLCogVideoX.from_pretrained(shipped.base_folder(chosen.start) / "vae").float().state_dict()
    hogwild.run(VAETask(trained=start is not None), plan, work / "vae.pt", start)


def train_decoder(work: Path, chosen) -> None:
    """Nothing; trains the decoder on into work/decoder.pt, the latents unchanged."""
    plan = _plan(
        chosen, steps=chosen.decoder_steps, minutes=chosen.decoder_minutes, learning_rate=1e-3, ema_decay=0.99,
        warmup_steps=30,
    )  # fmt: skip
    hogwild.run(DecoderTask(work / "vae.pt"), plan, work / "decoder.pt")


def trained_vae(work: Path):
    """The VAE of work/decoder.pt or work/vae.pt, float32, with its scaling factor set."""
    vae = make_vae()
    trained = work / "decoder.pt" if (work / "decoder.pt").exists() else work / "vae.pt"
    vae.load_state_dict(torch.load(trained, weights_only=True)["ema"])
    vae.eval().requires_grad_(False)
    scale_file = work / "vae_scale.json"
    if not scale_file.exists():
        # bfloat16 is several times faster on a CPU, and as good for this.
        half = copy.deepcopy(vae).to(torch.bfloat16)
        scale = {"scaling_factor": latent_scale(half, 16)} | measure_vae(half, 12)
        scale_file.write_text(json.dumps(scale))
        log.info("vae: %s", scale)
    vae.register_to_config(scaling_factor=json.loads(scale_file.read_text())["scaling_factor"])
    return vae


def train_base(work: Path, chosen) -> None:
    """Nothing; trains transformer and text encoder into work/base.pt."""
    plan = _plan(chosen, steps=chosen.base_steps, minutes=chosen.base_minutes, learning_rate=chosen.base_rate)
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
    """Nothing; writes what work/vae.pt and work/base.pt hold now as the base of a weights folder."""
    vae = trained_vae(work)
    module = BaseTask(work, 1.0).make_module()
    module.load_state_dict(torch.load(work / "base.pt", weights_only=True)["ema"])
    save_base(
        shipped.base_folder(out),
        vae=vae,
        transformer=module["transformer"],
        text_encoder=module["text_encoder"],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Nothing; runs the stages asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=shipped.WEIGHTS, help="the weights folder to write")
    parser.add_argument("--work", type=Path, default=Path(".cache/world"), help="checkpoints and data")
    parser.add_argument("--start", type=Path, help="a weights folder whose base to train on from, not from nothing")
    parser.add_argument("--stages", default=",".join(STAGES), help="comma separated: " + ", ".join(STAGES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each, on a CPU")
    parser.add_argument("--vae-steps", type=int, default=3600, help="per worker")
    parser.add_argument("--vae-minutes", type=float)
    parser.add_argument("--vae-rate", type=float, default=1.5e-3)
    parser.add_argument("--decoder-steps", type=int, default=400, help="per worker")
    parser.add_argument("--decoder-minutes", type=float)
    parser.add_argument("--base-steps", type=int, default=12000, help="per worker")
    parser.add_argument("--base-minutes", type=float)
    parser.add_argument("--base-rate", type=float, default=7e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--clips", type=int, default=5120)
    parser.add_argument("--refadapter-minutes", type=float)
    parser.add_argument("--fresh", action="store_true", help="also make adapters anew whose files exist")
    parser.add_argument("--nice", type=int, default=0)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    stages = chosen.stages.split(",")
    unknown = set(stages) - set(STAGES)
    if unknown:
        parser.error(f"no stage is called {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}.")
    for stage in STAGES:
        if stage not in stages:
            continue
        started = time.monotonic()
        log.info("stage %s", stage)
        if stage == "vae":
            train_vae(chosen.work, chosen)
        elif stage == "data":
            encode_data(
                trained_vae(chosen.work),
                chosen.work / "data",
                num_clips=chosen.clips,
                device=chosen.device,
                workers=chosen.workers,
            )
        elif stage == "base":
            train_base(chosen.work, chosen)
            export_base(chosen.work, chosen.out)
        elif stage == "decoder":
            train_decoder(chosen.work, chosen)
            vae = trained_vae(chosen.work)
            log.info("vae: %s", measure_vae(copy.deepcopy(vae).to(torch.bfloat16), 12))
            export_base(chosen.work, chosen.out)
        elif stage == "refadapter":
            from .adapter_training import build_refadapter

            if chosen.fresh:
                shipped.refadapter_path(chosen.out).unlink(missing_ok=True)
            build_refadapter(chosen.out, device=chosen.device, minutes=chosen.refadapter_minutes)
        elif stage == "fae":
            from .adapter_training import build_faes

            if chosen.fresh:
                for action in ACTIONS:
                    shipped.fae_path(action, chosen.out).unlink(missing_ok=True)
            build_faes(chosen.out, device=chosen.device, workers=chosen.workers)
        log.info("stage %s: %.1f minutes", stage, (time.monotonic() - started) / 60)


if __name__ == "__main__":
    main()
