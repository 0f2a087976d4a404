"""Trains AMG's adapter: python -m flexiact_core.amg.train_amg --help

With several GPUs: accelerate launch --multi_gpu --num_processes 2 -m flexiact_core.amg.train_amg ...
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ..command_line import Processes, add_adapter_settings, training_parser


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The settings on the command line."""
    parser = training_parser(
        "Trains AMG's LoRA and input layer on clips with their avatars.", "adapter",
        steps=40000, learning_rate=1e-6, batch="clips per step and process; the authors took 8",
    )  # fmt: skip
    add_adapter_settings(parser, rank=4)
    parser.add_argument(
        "--model", type=Path, required=True, help="ModelScope base, or AMG to go on from; file or folder"
    )
    parser.add_argument("--data", type=Path, required=True, help="the release's layout, or a folder of pairs")
    parser.add_argument("--components", type=Path, help="diffusers folder of SD 2.1, for a folder of pairs")
    parser.add_argument("--adapter", type=Path, help="adapter to go on from")
    parser.add_argument("--frames", type=int, default=16, help="frames of a clip")
    parser.add_argument("--skip", type=int, default=0, help="first clips to leave out; the authors left out 5500")
    parser.add_argument("--size", type=int, default=256, help="pixels per side, for a folder of pairs")
    parser.add_argument("--caption-dropout", type=float, default=0.0)
    return parser.parse_args(arguments)


def train(settings: argparse.Namespace) -> Path:
    """The path of the adapter written; each of several processes calls this.

    Raises FileError, SettingError and ShapeError if files or settings cannot be used.
    """
    import torch

    from .fit import adapter_of, fit_amg
    from .loading import load_amg, save_adapter

    processes = Processes()
    amg = load_amg(
        settings.model, getattr(torch, settings.dtype), components=settings.components, adapter=settings.adapter
    )
    with processes.one_first():
        clips, null_text = _read_clips(settings, amg, processes.device, processes.say)
    amg.unet.to(processes.device)
    fit = partial(
        fit_amg, amg, clips.draw, rank=settings.rank, null_text=null_text, caption_dropout=settings.caption_dropout
    )
    state = processes.train(settings, fit)
    metadata = {"steps": state.steps_done, "seed": settings.seed}
    processes.finish(partial(save_adapter, adapter_of(state), settings.output, metadata))
    return settings.output


def _read_clips(settings: argparse.Namespace, amg, device, say):
    """Clips to draw from, and the text of no words where there is one; the encoders leave the device again."""
    from ..digests import module_digest
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
        made_with=module_digest(amg.vae) + module_digest(amg.text_encoder),
        on_pair=lambda index: say(f"encoded {index + 1} of {len(pairs)} pairs"),
    )
    amg.vae.to("cpu")
    return clips, texts[""]


if __name__ == "__main__":
    train(parse_arguments())
