"""Trains a RefAdapter from a list of videos: python -m flexiact_core.flexiact.train_refadapter --help

With several GPUs: torchrun --nproc_per_node 2 -m flexiact_core.flexiact.train_refadapter ... (accelerate shares the
gradients; ACCELERATE_USE_CPU=true tries it without a GPU).
"""

from __future__ import annotations

import argparse
from pathlib import Path

DTYPES = ("bfloat16", "float16", "float32")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The settings on the command line."""
    parser = argparse.ArgumentParser(description="Trains a RefAdapter from a list of videos with captions.")
    parser.add_argument("--base", type=Path, required=True, help="diffusers folder of CogVideoX-5b-I2V")
    parser.add_argument("--data", type=Path, required=True, help="CSV: path, start frame, end frame, fps, ..., caption")
    parser.add_argument("--output", type=Path, required=True, help=".safetensors file to write")
    parser.add_argument("--cache", type=Path, help="folder for encoded clips; beside the output by default")
    parser.add_argument("--steps", type=int, default=40000)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--batch-size", type=int, default=1, help="clips per step and process; 8 in all in the paper")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="what the base computes in")
    parser.add_argument("--checkpoint-every", type=int, default=500, help="steps between two checkpoints")
    parser.add_argument("--no-resume", action="store_true", help="start anew although a checkpoint is there")
    return parser.parse_args(arguments)


def train(settings: argparse.Namespace) -> Path:
    """The path of the RefAdapter written; each of several processes calls this.

    Raises FileError, SettingError and ShapeError if files or settings cannot be used.
    """
    import torch
    from accelerate import Accelerator

    from ..clip_lists import read_clip_list
    from ..cogvideox.encodings import encode_listed_clips
    from ..cogvideox.loading import load_base
    from ..cogvideox.model import base_signature, clip_format, encode_prompt
    from ..cogvideox.sampling import make_scheduler
    from ..training import load_state, save_state
    from .fit import fit_refadapter, refadapter_of
    from .refadapter import save_refadapter

    accelerator = Accelerator()
    device = accelerator.device
    clips = read_clip_list(settings.data)
    base = load_base(settings.base, settings.base, getattr(torch, settings.dtype))
    cache = settings.cache or settings.output.with_suffix(".clips")
    length = base.transformer.config.max_text_seq_length

    # Encoded once, by the first process of each machine; the encoders leave the device before training starts.
    with accelerator.local_main_process_first():
        captions = {}
        base.text_encoder.to(device)
        for caption in {clip.caption for clip in clips}:
            captions[caption] = encode_prompt(base.text_encoder, base.tokenizer, caption, length, device).cpu()
        base.text_encoder.to("cpu")
        base.vae.to(device)
        encoded = encode_listed_clips(
            base.vae,
            clips,
            cache,
            captions.__getitem__,
            form=clip_format(base),
            device=device,
            seed=settings.seed,
            on_clip=lambda index: accelerator.print(f"encoded {index + 1} of {len(clips)} clips"),
        )
        base.vae.to("cpu")

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

    transformer = base.transformer.to(device)
    state = fit_refadapter(
        transformer,
        make_scheduler(base.scheduler_config, "DPM"),
        encoded.draw,
        rank=settings.rank,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        device=device,
        batch_size=settings.batch_size,
        gradient_checkpointing=device.type != "cpu",
        resume=resumed,
        on_step=on_step,
        wrap=accelerator.prepare_model if accelerator.num_processes > 1 else None,
        shard=(accelerator.process_index, accelerator.num_processes),
    )
    if accelerator.is_main_process:
        save_state(state, checkpoint, {})
        metadata = {"base": base_signature(transformer), "steps": str(state.steps_done), "seed": str(settings.seed)}
        save_refadapter(refadapter_of(state), settings.output, metadata)
        accelerator.print(f"saved {settings.output}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return settings.output


if __name__ == "__main__":
    train(parse_arguments())
