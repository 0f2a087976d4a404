"""Learns an action (FAE): python -m flexiact_core.flexiact.train_fae --help

With several GPUs: accelerate launch --multi_gpu --num_processes 2 -m flexiact_core.flexiact.train_fae ...
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..command_line import Processes, add_frozen_settings, add_sample_settings, training_parser, whole_disk

if TYPE_CHECKING:
    from torch import Tensor

    from ..cogvideox.encodings import Clips
    from ..cogvideox.model import CogVideoXI2V
    from ..training import TrainingState


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The settings on the command line."""
    parser = training_parser(
        "Learns an action from a video, or from a list of clips such as an action's crop.csv in the authors' folder.",
        "action", steps=3500, learning_rate=3e-3, batch="crops per step and process; the authors took 1",
    )  # fmt: skip
    add_frozen_settings(parser)
    parser.add_argument("--base", type=Path, required=True, help="diffusers folder of the base")
    parser.add_argument(
        "--data", type=Path, required=True, help="video, or CSV: path, start frame, end frame, fps, ..., caption"
    )
    parser.add_argument("--caption", default="", help="what a video shows; lists bring their own")
    parser.add_argument("--start", type=float, default=0.0, help="seconds of a video to skip at the beginning")
    parser.add_argument("--duration", type=float, default=0.0, help="seconds of a video to use; 0: to the end")
    parser.add_argument("--crops", type=int, default=12, help="versions cut from a video at random; lists have crops")
    add_sample_settings(parser)
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
    from .samples import SampleVideos

    processes = Processes()
    base = load_base(settings.base, settings.base, getattr(torch, settings.dtype))
    clips = encode(base, *read_clips(settings, base), processes)
    samples = SampleVideos.asked_for(settings, base, processes)
    base.transformer.to(processes.device)

    def learned(state: TrainingState) -> FAE:
        about = {"base": base_signature(base.transformer), "steps": state.steps_done, "seed": settings.seed}
        return FAE(state.parameters[TOKENS], name=settings.output.stem, metadata=about)

    fit = partial(fit_fae, base.transformer, make_scheduler(base.scheduler_config, "DPM"), clips)
    tried = samples and samples.every(settings.sample_every, lambda state: {"faes": [(learned(state), 1.0)]})
    state = processes.train(settings, fit, [tried] if tried else [])
    processes.finish(partial(save_fae, learned(state), settings.output))
    return settings.output


def read_clips(settings: argparse.Namespace, base: CogVideoXI2V) -> tuple[list[Tensor], list[str]]:
    """Videos (T, H, W, 3) in 0..1 in the form the base learns from, and their captions: one for all, or one for each.

    Of a video, random crops, of which the first is uncut; of a list, each clip as it is.
    """
    import torch

    from ..clip_lists import read_clip_list
    from ..clips import cut_crops
    from ..cogvideox.model import clip_format
    from ..video_files import read_video

    form, generator = clip_format(base), torch.Generator().manual_seed(settings.seed)

    def cut(path: Path, start: float, duration: float, count: int) -> list[Tensor]:
        frames = read_video(path, form.fps, start, duration, size=form.size_px)
        return cut_crops(frames, form.fps, form, count, generator)

    if settings.data.suffix.lower() != ".csv":
        return cut(settings.data, settings.start, settings.duration, settings.crops), [settings.caption]
    listed = read_clip_list(settings.data, root=whole_disk(settings.data))
    videos = [video for clip in listed for video in cut(clip.path, clip.start, clip.duration, 1)]
    return videos, [clip.caption for clip in listed]


def encode(base: CogVideoXI2V, videos: list[Tensor], captions: list[str], processes: Processes) -> Clips:
    """The videos encoded, in each process; the encoders leave the device again."""
    import torch

    from ..cogvideox.encodings import encode_captions, encode_clips

    device = processes.device
    embeds = encode_captions(base, [*captions, ""], device)
    base.vae.to(device)
    clips = encode_clips(
        base.vae, videos, torch.cat([embeds[caption] for caption in captions]), embeds[""], device,
        lambda index: processes.say(f"encoded {index + 1} of {len(videos)} clips"),
    )  # fmt: skip
    base.vae.to("cpu")
    return clips


if __name__ == "__main__":
    train(parse_arguments())
