"""Learns an action (FAE) from its clips: python -m flexiact_core.flexiact.train_fae --help

With several GPUs: torchrun --nproc_per_node 2 -m flexiact_core.flexiact.train_fae ... (accelerate shares the gradients;
ACCELERATE_USE_CPU=true tries it without a GPU).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..command_line import Processes, training_parser

if TYPE_CHECKING:
    from ..cogvideox.encodings import Clips
    from ..cogvideox.model import CogVideoXI2V


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The settings on the command line."""
    parser = training_parser(
        "Learns an action from a video, or from the clips of an action of the authors' benchmark folder.", "action",
        learning_rate=3e-3, batch="clips", steps=3500,
    )  # fmt: skip
    parser.add_argument("--base", type=Path, required=True, help="diffusers folder of the base")
    parser.add_argument(
        "--data", type=Path, required=True, help="video, or CSV: path, start frame, end frame, fps, ..., caption"
    )
    parser.add_argument("--caption", default="", help="what a video shows; lists bring their own")
    parser.add_argument("--crops", type=int, default=12, help="clips cut from a video at random")
    return parser.parse_args(arguments)


def train(settings: argparse.Namespace) -> Path:
    """The path of the action written; each of several processes calls this.

    Raises FileError, SettingError and ShapeError if files or settings cannot be used.
    """
    import torch

    from ..cogvideox.loading import load_base
    from ..cogvideox.model import base_signature
    from ..cogvideox.sampling import make_scheduler
    from .fae import FAE, save_fae
    from .fit import TOKENS, fit_fae

    processes = Processes()
    base = load_base(settings.base, settings.base, getattr(torch, settings.dtype))
    videos, captions = read_clips(settings, base)
    clips = encode(base, videos, captions, processes)
    base.transformer.to(processes.device)
    learn = partial(fit_fae, base.transformer, make_scheduler(base.scheduler_config, "DPM"), clips)
    state = processes.train(settings, lambda wrap, **how: learn(share=processes.average, **how))
    metadata = {"base": base_signature(base.transformer), "steps": state.steps_done, "seed": settings.seed}
    fae = FAE(state.parameters[TOKENS], name=settings.output.stem, metadata=metadata)
    processes.finish(partial(save_fae, fae, settings.output))
    return settings.output


def read_clips(settings: argparse.Namespace, base: CogVideoXI2V) -> tuple[list, list[str]]:
    """Videos (T, H, W, 3) in 0..1 in the form the base learns from, and their captions: one for all, or one for each.

    Of a video, random crops, of which the first is uncut; of a list, each clip as it is.
    """
    import torch

    from ..clip_lists import read_clip_list
    from ..clips import cut_crops
    from ..cogvideox.model import clip_format
    from ..video_files import read_video

    form, generator = clip_format(base), torch.Generator().manual_seed(settings.seed)
    if settings.data.suffix.lower() != ".csv":
        frames = read_video(settings.data, form.fps, size=form.size_px)
        return cut_crops(frames, form.fps, form, settings.crops, generator), [settings.caption]
    videos, captions = [], []
    for clip in read_clip_list(settings.data):
        frames = read_video(clip.path, form.fps, clip.start, clip.duration, size=form.size_px)
        videos += cut_crops(frames, form.fps, form, 1, generator)
        captions.append(clip.caption)
    return videos, captions


def encode(base: CogVideoXI2V, videos: list, captions: list[str], processes: Processes) -> Clips:
    """The videos encoded; the encoders leave the device again. Each process does it: it takes less than sharing."""
    import torch

    from ..cogvideox.encodings import encode_clips
    from ..cogvideox.model import encode_prompt

    device, length = processes.device, base.transformer.config.max_text_seq_length
    base.text_encoder.to(device)
    read = partial(encode_prompt, base.text_encoder, base.tokenizer, length=length, device=device)
    prompts, empty = torch.cat([read(prompt=caption) for caption in captions]), read(prompt="")
    base.text_encoder.to("cpu")
    base.vae.to(device)
    clips = encode_clips(
        base.vae, videos, prompts, empty, device,
        lambda index: processes.say(f"encoded {index + 1} of {len(videos)} clips"),
    )  # fmt: skip
    base.vae.to("cpu")
    return clips


if __name__ == "__main__":
    train(parse_arguments())
