"""Trains AMG's adapter: python -m flexiact_core.amg.train_amg --help

With several GPUs: torchrun --nproc_per_node 2 -m flexiact_core.amg.train_amg ... (accelerate shares the gradients;
ACCELERATE_USE_CPU=true tries it without a GPU).
"""

from __future__ import annotations

import argparse
from pathlib import Path

DTYPES = ("bfloat16", "float16", "float32")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The settings on the command line."""
    parser = argparse.ArgumentParser(description="Trains AMG's LoRA and input layer on clips with their avatars.")
    parser.add_argument(
        "--model", type=Path, required=True, help="ModelScope base, or AMG to go on from; file or folder"
    )
    parser.add_argument("--data", type=Path, required=True, help="the release's layout, or a folder of pairs")
    parser.add_argument("--output", type=Path, required=True, help=".safetensors file of the adapter to write")
    parser.add_argument("--components", type=Path, help="diffusers folder of SD 2.1, for a folder of pairs")
    parser.add_argument("--adapter", type=Path, help="adapter to go on from")
    parser.add_argument("--cache", type=Path, help="folder for encoded pairs; beside the output by default")
    parser.add_argument("--steps", type=int, default=40000)
    parser.add_argument("--learning-rate", type=float, default=1e-6)
    parser.add_argument("--batch-size", type=int, default=1, help="clips per step and process; the authors took 8")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--frames", type=int, default=16, help="frames of a clip")
    parser.add_argument("--skip", type=int, default=0, help="first clips to leave out; the authors left out 5500")
    parser.add_argument("--size", type=int, default=256, help="pixels per side, for a folder of pairs")
    parser.add_argument("--caption-dropout", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="what the base computes in")
    parser.add_argument("--checkpoint-every", type=int, default=500, help="steps between two checkpoints")
    parser.add_argument("--no-resume", action="store_true", help="start anew although a checkpoint is there")
    return parser.parse_args(arguments)


def train(settings: argparse.Namespace) -> Path:
    """The path of the adapter written; each of several processes calls this.

    Raises FileError, SettingError and ShapeError if files or settings cannot be used.
    """
    import torch
    from accelerate import Accelerator

    from ..training import load_state, save_state
    from .fit import adapter_of, fit_amg
    from .loading import load_amg, save_adapter

    accelerator = Accelerator()
    device = accelerator.device
    amg = load_amg(
        settings.model, getattr(torch, settings.dtype), components=settings.components, adapter=settings.adapter
    )
    with accelerator.local_main_process_first():
        clips, null_text = _read_clips(settings, amg, device, accelerator.print)
    checkpoint = settings.output.with_suffix(".checkpoint.safetensors")
    resumed = None
    if checkpoint.is_file() and not settings.no_resume:
        resumed = load_state(checkpoint)[0]
        accelerator.print(f"resuming at step {resumed.steps_done}")

    def on_step(index, loss, take_state):
        mean = accelerator.reduce(torch.tensor(loss, device=device), "mean").item()
        accelerator.print(f"step {index + 1}/{settings.steps} loss {mean:.4f}")
        if accelerator.is_main_process and (index + 1) % settings.checkpoint_every == 0:
            save_state(take_state(), checkpoint, {})

    amg.unet.to(device)
    state = fit_amg(
        amg,
        clips.draw,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        device=device,
        batch_size=settings.batch_size,
        rank=settings.rank,
        null_text=null_text,
        caption_dropout=settings.caption_dropout,
        gradient_checkpointing=device.type != "cpu",
        resume=resumed,
        on_step=on_step,
        wrap=accelerator.prepare_model if accelerator.num_processes > 1 else None,
        shard=(accelerator.process_index, accelerator.num_processes),
    )
    if accelerator.is_main_process:
        save_state(state, checkpoint, {})
        save_adapter(adapter_of(state), settings.output, {"steps": state.steps_done, "seed": settings.seed})
        accelerator.print(f"saved {settings.output}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return settings.output


def _read_clips(settings: argparse.Namespace, amg, device, say):
    """Clips to draw from, and the text of no words where there is one; the encoders leave the device again."""
    from ..errors import FileError
    from .dataset import ReleasedClips, encode_pairs, find_pairs, is_released, vae_encoder
    from .text import encode_prompt

    if is_released(settings.data):
        clips = ReleasedClips(settings.data, settings.frames, skip=settings.skip)
        return clips, clips.zero_text
    pairs = find_pairs(settings.data)
    if amg.vae is None:
        raise FileError(
            "--components: a folder of pairs needs text encoder and VAE. Name a diffusers folder of SD 2.1."
        )
    amg.text_encoder.to(device)
    words = {pair.caption for pair in pairs} | {""}
    texts = {text: encode_prompt(amg.text_encoder, amg.tokenizer, text, device).float().cpu() for text in words}
    amg.text_encoder.to("cpu")
    amg.vae.to(device)
    clips = encode_pairs(
        pairs,
        settings.cache or settings.output.with_suffix(".clips"),
        vae_encoder(amg.vae, device),
        texts.__getitem__,
        amg.vae.config.scaling_factor,
        width_px=settings.size,
        height_px=settings.size,
        num_frames=settings.frames,
        on_pair=lambda index: say(f"encoded {index + 1} of {len(pairs)} pairs"),
    )
    amg.vae.to("cpu")
    return clips, texts[""]


if __name__ == "__main__":
    train(parse_arguments())
