"""How the small world's RefAdapter and its embeddings of every action are trained, with the pack's own trainer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import shipped
from ..actions import ACTIONS, NUM_FRAMES
from ..render import render_frames
from ..scenes import caption
from .base_training import training_clip
from .hogwild import faster_format

if TYPE_CHECKING:
    from ...cogvideox.encodings import TrainingClip
    from ...cogvideox.model import CogVideoXI2V
    from ...training import TrainingState

log = logging.getLogger(__name__)

FAE_STEPS = 200
FAE_LEARNING_RATE = 3e-2
# A constant rate leaves the tokens shaking about the best place; a lower one lets them settle.
FAE_SETTLE_STEPS = 200
FAE_SETTLE_RATE = 8e-3
FAE_BATCH_SIZE = 8
# Few crops of a clip leave something of its layout in what is learned.
FAE_CROPS = 64
REFADAPTER_RANK = 8
REFADAPTER_STEPS = 1200
REFADAPTER_LEARNING_RATE = 5e-4
REFADAPTER_BATCH_SIZE = 16


def learn_action(
    base: CogVideoXI2V,
    action: str,
    *,
    steps: int = FAE_STEPS,
    settle_steps: int = 0,
    crops: int = FAE_CROPS,
    debiased: bool = True,
    seed: int = 0,
    device: str = "cpu",
) -> torch.Tensor:
    """Motion tokens (layers, 16, width) learned from the one reference clip of `action`, its verb unsaid.

    settle_steps: further steps at a lower learning rate. crops: of the clip, 1 is the clip uncut. debiased: whether
    the debiased motion loss takes part.
    """
    from ...clips import cut_crops
    from ...cogvideox.model import clip_format

    example = shipped.example(action)
    generator = torch.Generator().manual_seed(seed)
    videos = cut_crops(torch.from_numpy(example.reference), shipped.FPS, clip_format(base), crops, generator)
    return learn_videos(
        base, videos, example.reference_caption, steps=steps, settle_steps=settle_steps, debiased=debiased, seed=seed,
        device=device,
    )  # fmt: skip


def learn_videos(
    base: CogVideoXI2V, videos: Sequence[torch.Tensor], said: str, *, steps: int, rate: float = FAE_LEARNING_RATE,
    settle_steps: int = 0, debiased: bool = True, seed: int = 0, device: str = "cpu",
) -> torch.Tensor:  # fmt: skip
    """Motion tokens (layers, S, width) learned from videos (T, H, W, 3) that show one action, under one caption.

    S is as many as a caption has tokens. rate is the learning rate of `steps`; the other settings are those of
    learn_action().
    """
    from ...cogvideox.encodings import encode_clips
    from ...cogvideox.model import encode_prompt
    from ...cogvideox.sampling import make_scheduler
    from ...flexiact.fit import TOKENS, fit_fae
    from ...training import Course

    where, length = torch.device(device), base.transformer.config.max_text_seq_length
    with torch.no_grad():
        words, empty = (encode_prompt(base.text_encoder, base.tokenizer, text, length, where) for text in (said, ""))
    clips = encode_clips(base.vae, videos, words, empty, where)
    stages = [(steps, rate)]
    if settle_steps:
        stages.append((steps + settle_steps, FAE_SETTLE_RATE))
    state = None
    for total, rate in stages:
        course = Course(total, rate, seed, where, batch_size=FAE_BATCH_SIZE, resume=state)
        scheduler = make_scheduler(base.scheduler_config, "DPM")
        state = fit_fae(base.transformer, scheduler, clips, course, num_tokens=length, debiased=debiased)
    return state.parameters[TOKENS]


def build_faes(
    weights: Path, *, device: str, workers: int, steps: int = FAE_STEPS, actions: tuple[str, ...] = tuple(ACTIONS)
) -> None:
    """Writes the FAE of every action into a weights folder, and beside it the clip it is learned from.

    FAEs that exist are kept. steps: at each of the two learning rates.
    """
    from ...video_files import write_preview

    missing = [name for name in actions if not shipped.fae_path(name, weights).exists()]
    spread(_learn_actions, missing, weights, device, workers, steps)
    for name in actions:
        clip = torch.from_numpy(shipped.example(name).reference)
        write_preview(shipped.fae_path(name, weights).with_suffix(".mp4"), clip, shipped.FPS)


def spread(work: Callable[..., None], missing: list, weights: Path, device: str, workers: int, *more: object) -> None:
    """Runs `work` on every workers-th item in as many processes; `more` is given to each."""
    workers = min(workers, len(missing)) if device == "cpu" else 1
    if workers == 1:
        work(0, missing, weights, device, 1, *more)
    elif missing:
        torch.multiprocessing.spawn(work, args=(missing, weights, device, workers, *more), nprocs=workers)


def _learn_actions(rank: int, missing: list[str], weights: Path, device: str, workers: int, steps: int) -> None:
    from ...cogvideox.loading import load_base
    from ...cogvideox.model import base_signature
    from ...flexiact.fae import FAE, save_fae

    base = load_base(shipped.base_folder(weights), shipped.base_folder(weights), faster_format(device))
    settle_worker(base, device)
    for action in missing[rank::workers]:
        started = time.monotonic()
        tokens = learn_action(base, action, steps=steps, settle_steps=steps, device=device)
        metadata = {
            "base": base_signature(base.transformer),
            "name": action,
            "caption": shipped.example(action).reference_caption,
            "steps": str(2 * steps),
        }
        save_fae(FAE(tokens.half(), name=action, metadata=metadata), shipped.fae_path(action, weights))
        log.info("fae %s: %.0f s", action, time.monotonic() - started)


def settle_worker(base: CogVideoXI2V, device: str) -> None:
    """Logs as the main process does, with one thread on a CPU, and puts the base on its device."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if device == "cpu":
        torch.set_num_threads(1)
    for part in (base.vae, base.text_encoder, base.transformer):
        part.to(device)


@torch.no_grad()
def read_refadapter_data(base: CogVideoXI2V, *, num_clips: int, device: str) -> dict:
    """Clips as the base saw them, and one random frame of each as the picture the video has to start from.

    Size, angle and place of the picture stay those of the clip: an adapter that learned to forget them would forget
    them in growth and turns, too.

    video_mean and video_std are (N, 5, 16, 8, 8), image_mean and image_std (N, 1, 16, 8, 8), unscaled; words is a
    list of N captions, half of them naming the action.
    """
    from ...cogvideox.model import encode_pixels
    from ...video import to_model_pixels

    columns: dict[str, list] = {}
    words: list[str] = []
    for index in range(num_clips):
        scene, motion, action = training_clip(index)
        rng = np.random.default_rng([index, 78])
        video = torch.from_numpy(render_frames(scene, motion))
        picture = video[rng.integers(NUM_FRAMES)][None]
        for name, pixels in (("video", video), ("image", picture)):
            posterior = encode_pixels(base.vae, to_model_pixels(pixels), torch.device(device))
            columns.setdefault(f"{name}_mean", []).append(posterior.mean)
            columns.setdefault(f"{name}_std", []).append(posterior.std)
        words.append(caption(scene, action if rng.uniform() < 0.5 else None))
    return {name: torch.cat(values) for name, values in columns.items()} | {"words": words}


def build_refadapter(
    weights: Path,
    *,
    device: str,
    num_clips: int = 1024,
    steps: int = REFADAPTER_STEPS,
    minutes: float | None = None,
) -> None:
    """Writes the RefAdapter into a weights folder. A file that exists is kept.

    minutes: a limit on the training's wall time; what was learned by then is written.
    """
    from ...cogvideox.loading import load_base
    from ...cogvideox.model import base_signature
    from ...cogvideox.sampling import make_scheduler
    from ...flexiact.fit import fit_refadapter, refadapter_of
    from ...flexiact.refadapter import save_refadapter
    from ...training import Course, StopTraining

    target = shipped.refadapter_path(weights)
    if target.exists():
        return
    base = load_base(shipped.base_folder(weights), shipped.base_folder(weights), faster_format(device))
    settle_worker(base, device)
    draw_clip = _clips_of(base, read_refadapter_data(base, num_clips=num_clips, device=device), device)
    started = time.monotonic()

    def on_step(step: int, loss: float, take_state: Callable[[], TrainingState]) -> None:
        if step % 50 == 0:
            log.info("refadapter step %d loss %.4f", step, loss)
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            raise StopTraining

    course = Course(
        steps, REFADAPTER_LEARNING_RATE, 0, torch.device(device), batch_size=REFADAPTER_BATCH_SIZE, on_step=on_step
    )
    scheduler = make_scheduler(base.scheduler_config, "DPM")
    state = fit_refadapter(base.transformer, scheduler, draw_clip, course, rank=REFADAPTER_RANK)
    learned = refadapter_of(state)
    half = replace(learned, tensors={key: value.half() for key, value in learned.tensors.items()})
    metadata = {"base": base_signature(base.transformer), "steps": str(state.steps_done)}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_refadapter(half, target, metadata)
    log.info("refadapter: %d steps, %.0f s", state.steps_done, time.monotonic() - started)


@torch.no_grad()
def _clips_of(base: CogVideoXI2V, data: dict, device: str) -> Callable[[torch.Generator], TrainingClip]:
    """A function that draws one of the clips of read_refadapter_data(), with its caption's embeddings."""
    from ...cogvideox.encodings import TrainingClip
    from ...cogvideox.model import Posterior, encode_prompt

    where, length = torch.device(device), base.transformer.config.max_text_seq_length
    embeds = {
        text: encode_prompt(base.text_encoder, base.tokenizer, text, length, where).cpu() for text in set(data["words"])
    }

    def draw_clip(generator: torch.Generator) -> TrainingClip:
        row = int(torch.randint(len(data["words"]), (1,), generator=generator))
        video, image = (
            Posterior(data[f"{name}_mean"][row : row + 1], data[f"{name}_std"][row : row + 1])
            for name in ("video", "image")
        )
        return TrainingClip(video, image, embeds[data["words"][row]], base.vae.config.scaling_factor)

    return draw_clip
