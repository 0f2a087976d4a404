"""Trains a RefAdapter from a list of videos: python -m flexiact_core.flexiact.train_refadapter --help

With several GPUs: accelerate launch --multi_gpu --num_processes 2 -m flexiact_core.flexiact.train_refadapter ...
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..command_line import Processes, add_adapter_settings, add_sample_settings, training_parser, whole_disk

if TYPE_CHECKING:
    from ..clip_lists import ListedClip
    from ..cogvideox.encodings import EncodedClips
    from ..cogvideox.model import CogVideoXI2V


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The settings on the command line."""
    parser = training_parser(
        "Trains a RefAdapter from a list of videos with captions.", "RefAdapter",
        steps=40000, learning_rate=1e-5, batch="clips per step and process; the authors took 8",
    )  # fmt: skip
    add_adapter_settings(parser, rank=64)
    parser.add_argument("--base", type=Path, required=True, help="diffusers folder of CogVideoX-5b-I2V")
    parser.add_argument("--data", type=Path, required=True, help="CSV: path, start frame, end frame, fps, ..., caption")
    add_sample_settings(parser)
    return parser.parse_args(arguments)


def train(settings: argparse.Namespace) -> Path:
    """The path of the RefAdapter written; each of several processes calls this.

    Raises FileError, SettingError and ShapeError if files or settings cannot be used.
    """
    import torch

    from ..clip_lists import read_clip_list
    from ..cogvideox.loading import load_base
    from ..cogvideox.model import base_signature
    from .fit import refadapter_fit, refadapter_of
    from .refadapter import save_refadapter
    from .samples import SampleVideos

    processes = Processes()
    clips = read_clip_list(settings.data, root=whole_disk(settings.data))
    base = load_base(settings.base, settings.base, getattr(torch, settings.dtype))
    about = {"base": base_signature(base.transformer)}
    with processes.one_first():
        encoded = encode_once(base, clips, settings, processes)
    samples = SampleVideos.asked_for(settings, base, processes)
    base.transformer.to(processes.device)
    tried = samples and samples.every(
        settings.sample_every, lambda state: {"adapters": [(refadapter_of(state, metadata=about), 1.0)]}
    )
    state = processes.train(settings, refadapter_fit(base, encoded, settings.rank), [tried] if tried else [])
    metadata = about | {"steps": state.steps_done, "seed": settings.seed}
    processes.finish(partial(save_refadapter, refadapter_of(state), settings.output, metadata))
    return settings.output


def encode_once(
    base: CogVideoXI2V, clips: list[ListedClip], settings: argparse.Namespace, processes: Processes
) -> EncodedClips:
    """The clips, encoded into files that are kept; the encoders leave the device again."""
    from ..cogvideox.encodings import encode_captions, encode_listed_clips
    from ..cogvideox.model import clip_format
    from ..digests import module_digest

    device = processes.device
    captions = encode_captions(base, (clip.caption for clip in clips), device)
    base.vae.to(device)
    encoded = encode_listed_clips(
        base.vae,
        clips,
        settings.cache or settings.output.with_suffix(".clips"),
        captions.__getitem__,
        form=clip_format(base),
        device=device,
        made_with=module_digest(base.text_encoder),
        seed=settings.seed,
        on_clip=lambda index: processes.say(f"encoded {index + 1} of {len(clips)} clips"),
    )
    base.vae.to("cpu")
    return encoded


if __name__ == "__main__":
    train(parse_arguments())
