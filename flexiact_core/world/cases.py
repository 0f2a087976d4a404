"""Videos of the small world to make and to measure: targets, actions, words and seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..cogvideox.model import CogVideoXI2V, Posterior
from ..cogvideox.sampling import Run
from ..flexiact.bias import MotionBias, own_bias
from . import shipped
from .actions import ACTIONS, NUM_FRAMES, SEEN_ACTIONS
from .measure import measure_video, score
from .render import render_clip
from .scenes import Scene, caption, sample_far_target, sample_posed_target, sample_target

if TYPE_CHECKING:
    from ..flexiact.refadapter import RefAdapter

STEPS = 25
CPU = torch.device("cpu")


TARGETS: dict[str, Callable[[int, Scene], Scene]] = {
    "held out": sample_target,
    "far": sample_far_target,
    "posed": sample_posed_target,
}


@dataclass(frozen=True)
class Setting:
    """One row of the table: what is applied, to which targets, under which words."""

    name: str
    fae: bool = True
    bias: MotionBias | None = None  # None: the base's own
    refadapter: float = 0.0
    targets: str = "held out"  # of TARGETS
    words: str = "plain"  # or "action", or "other": names another action than the clip's
    # How an FAE is learned anew for this row instead of taking the shipped one, and of which actions.
    learned: tuple[tuple[str, int | bool], ...] = ()
    actions: tuple[str, ...] = tuple(ACTIONS)


# One of each kind: there and back, away, size, turn, camera, never seen.
ABLATION_ACTIONS = ("jump", "slide", "grow", "spin", "pan", "hop")


# Strength, and the timesteps between which it ends: where this world decides motion, between there and the paper's,
# and the paper's.
WINDOWS = {
    "0": MotionBias(0.0),
    "1p": MotionBias(1.0, 800, 700),
    "3p": MotionBias(3.0, 800, 700),
    "3m": MotionBias(3.0, 600, 500),
    "1": MotionBias(1.0, 400, 300),
    "2": MotionBias(2.0, 400, 300),
    "3": MotionBias(3.0, 400, 300),
    "3l": MotionBias(3.0, 300, 200),
}

SETTINGS: dict[str, Setting] = {
    "none": Setting("no FAE", fae=False),
    "oracle": Setting("oracle: true video through the VAE", fae=False),
    "word": Setting("no FAE, action word in the caption", fae=False, words="action"),
    "weighted": Setting("FAE + weighting"),
    "refadapter": Setting("FAE + weighting + RefAdapter 0.7", refadapter=0.7),
    "uncut": Setting("FAE learned without crops, + weighting", learned=(("crops", 1),), actions=ABLATION_ACTIONS),
    "undebiased": Setting(
        "FAE learned without the debiased loss, + weighting", learned=(("debiased", False),), actions=ABLATION_ACTIONS
    ),
    "far_none": Setting("far targets, no FAE", fae=False, targets="far"),
    "far": Setting("far targets, FAE + weighting", targets="far"),
    "far_refadapter": Setting("far targets, FAE + weighting + RefAdapter 0.7", refadapter=0.7, targets="far"),
    "posed_none": Setting("turned targets, no FAE", fae=False, targets="posed"),
    "posed": Setting("turned targets, FAE + weighting", targets="posed"),
    "posed_refadapter": Setting("turned targets, FAE + weighting + RefAdapter 0.7", refadapter=0.7, targets="posed"),
} | {
    f"{words}_{key}": Setting(
        f"{said}, strength {bias.strength:g}, {bias.hold_until}/{bias.off_below}", bias=bias, words=words
    )
    for words, said in (("plain", "plain caption"), ("other", "contrary caption"))
    for key, bias in WINDOWS.items()
}


@dataclass(frozen=True)
class Case:
    """One video to make: a target, an action, the words, a seed."""

    action: str
    target: int
    scene: Scene
    words: str
    seed: int


@dataclass(frozen=True)
class World:
    """The loaded small world: base, tokens (layers, M, width) of each action's FAE, RefAdapter or None."""

    base: CogVideoXI2V
    faes: dict[str, Tensor]
    refadapter: RefAdapter | None


def load_world(weights: Path = shipped.WEIGHTS, dtype: torch.dtype = torch.float32) -> World:
    """The World in a weights folder, through the pack's own loaders."""
    from ..cogvideox.loading import load_base
    from ..flexiact.fae import load_fae
    from ..flexiact.refadapter import load_refadapter

    folder = shipped.base_folder(weights)
    refadapter = shipped.refadapter_path(weights)
    return World(
        base=load_base(folder, folder, dtype),
        faes={
            name: load_fae(shipped.fae_path(name, weights)).tokens
            for name in ACTIONS
            if shipped.fae_path(name, weights).exists()
        },
        refadapter=load_refadapter(refadapter) if refadapter.exists() else None,
    )


def make_cases(action: str, setting: Setting, num_targets: int, num_seeds: int) -> list[Case]:
    """The cases of one action in one row: every target with every seed."""
    reference = shipped.REFERENCE
    cases = []
    for target in range(num_targets):
        scene = TARGETS[setting.targets](target, reference)
        word: str | None = None
        if setting.words == "action":
            word = action
        elif setting.words == "other":
            others = [name for name in SEEN_ACTIONS if name not in (action, *ACTIONS[action].parts)]
            word = others[target % len(others)]
        for seed in range(num_seeds):
            cases.append(Case(action, target, scene, caption(scene, word), seed))
    return cases


def transfer_case(world: World, case: Case, **options) -> Tensor:
    """Latents (1, 5, 16, 8, 8) of one case with the FAE of its action, as transfer_cases() makes them."""
    return transfer_cases(world, [case], world.faes[case.action], seeds=(case.seed,), **options)


@torch.no_grad()
def transfer_cases(
    world: World,
    cases: Sequence[Case],
    tokens: Tensor | None,
    *,
    seeds: tuple[int, ...],
    bias: MotionBias | None = None,
    refadapter: float = 0.0,
    on_share: Callable[[int, Tensor], None] | None = None,
    steps: int = STEPS,
    **options,
) -> Tensor:
    """Latents (N, 5, 16, 8, 8) of N cases, made side by side as a node makes one: by transfer_action().

    tokens is the FAE's (layers, M, width), or None; bias None is the base's own; refadapter is the RefAdapter's weight.
    seeds are the cases', and further options those of Run.
    """
    from ..flexiact.fae import FAE
    from ..flexiact.transfer import transfer_action

    pictures, words = zip(*(encode_case(world, case) for case in cases), strict=True)
    image = Posterior(torch.cat([one.mean for one in pictures]), torch.cat([one.std for one in pictures]))
    embeds = torch.cat(words)
    run = Run(num_frames=NUM_FRAMES, device=CPU, **({"steps": steps, "cfg": 1.0, "seed": seeds} | options))
    return transfer_action(
        world.base, image, embeds, embeds, run,
        faes=[] if tokens is None else [(FAE(tokens), 1.0)],
        adapters=[(world.refadapter, refadapter)] if refadapter else [],
        bias=bias or own_bias(world.base.transformer.config), on_share=on_share,
    )  # fmt: skip


def sample_videos(world: World, cases: Sequence[Case], tokens: Tensor | None, **options) -> np.ndarray:
    """The videos (N, 17, 64, 64, 3) in 0..1 of cases, made side by side; options are those of transfer_cases().

    Every target starts from noise of its own.
    """
    from ..cogvideox.model import decode_latents
    from ..video import to_frames

    seeds = tuple(case.seed + 1000 * case.target for case in cases)
    latents = transfer_cases(world, cases, tokens, seeds=seeds, **options)
    return np.stack([to_frames(decode_latents(world.base.vae, one[None], CPU)).numpy() for one in latents])


def encode_case(world: World, case: Case) -> tuple[Posterior, Tensor]:
    """The VAE's Posterior of a case's target picture, and the embeddings of its words."""
    from ..cogvideox.model import encode_pixels, encode_prompt
    from ..video import to_model_pixels

    base = world.base
    picture = torch.from_numpy(render_clip(case.scene, None).frames[:1])
    length = base.transformer.config.max_text_seq_length
    return (
        encode_pixels(base.vae, to_model_pixels(picture), CPU),
        encode_prompt(base.text_encoder, base.tokenizer, case.words, length, CPU),
    )


@torch.no_grad()
def oracle_videos(world: World, cases: Sequence[Case]) -> np.ndarray:
    """The true videos of cases through the VAE, (N, 17, 64, 64, 3) in 0..1."""
    from ..video import to_frames, to_model_pixels

    vae = world.base.vae
    videos = []
    for case in cases:
        pixels = to_model_pixels(torch.from_numpy(render_clip(case.scene, case.action).frames))
        latents = vae.encode(pixels.to(next(vae.parameters()).dtype)).latent_dist.mode()
        videos.append(to_frames(vae.decode(latents).sample).numpy())
    return np.stack(videos)


def measure_cases(cases: Sequence[Case], videos: np.ndarray) -> list[dict]:
    """One record per video: what was asked and what the measure says."""
    records = []
    for case, video in zip(cases, videos, strict=True):
        fidelity, identity = measure_video(video, case.scene, case.action)
        records.append(
            {
                "action": case.action,
                "target": case.target,
                "seed": case.seed,
                "words": case.words,
                "slope": round(fidelity.slope, 4),
                "cosine": round(fidelity.cosine, 4),
                "nearest": fidelity.nearest,
                "accuracy": float(fidelity.nearest == case.action),
                "colour": round(identity.colour, 4),
                "shape": round(identity.shape, 4),
                "background": round(identity.background, 4),
                "right_shape": round(identity.right_shape, 4),
                "likeness": round(identity.likeness, 4),
                "score": round(score(fidelity, identity), 4),
            }
        )
    return records
