"""The table of the small world: how well actions transfer to held-out targets.

`python -m flexiact_core.world.evaluate` samples, measures, and writes evaluation.md and
the records of each row. Rows that are there are kept, so several processes can share a
folder. Every number is a mean over targets with a 95 % interval, bootstrapped
over targets.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import shipped
from .actions import ACTIONS, NUM_FRAMES, SEEN_ACTIONS, UNSEEN_ACTIONS
from .adapter_training import FAE_SETTLE_STEPS, learn_action
from .measure import measure_video
from .render import render_clip
from .scenes import Scene, caption, sample_far_target, sample_target

log = logging.getLogger(__name__)

STEPS = 25


@dataclass(frozen=True)
class Setting:
    """One row of the table: what is applied, to which targets, under which words."""

    name: str
    fae: bool = True
    alpha: float = 1.0
    refadapter: float = 0.0
    targets: str = "held out"  # or "far"
    words: str = "plain"  # or "action", or "other": names another action than the clip's
    # How an FAE is learned anew for this row instead of taking the shipped one, and of which actions.
    learned: tuple[tuple[str, int | bool], ...] = ()
    actions: tuple[str, ...] = tuple(ACTIONS)


# One of each kind: there and back, away, size, turn, camera, never seen.
ABLATION_ACTIONS = ("jump", "slide", "grow", "spin", "pan", "hop")

SETTINGS: dict[str, Setting] = {
    "none": Setting("no FAE", fae=False),
    "oracle": Setting("oracle: true video through the VAE", fae=False),
    "word": Setting("no FAE, action word in the caption", fae=False, words="action"),
    "fae": Setting("FAE, no weighting", alpha=0.0),
    "weighted": Setting("FAE + weighting"),
    "weighted3": Setting("FAE + weighting, alpha 3", alpha=3.0),
    "refadapter": Setting("FAE + weighting + RefAdapter 0.7", refadapter=0.7),
    "uncut": Setting("FAE learned without crops, + weighting", learned=(("crops", 1),), actions=ABLATION_ACTIONS),
    "undebiased": Setting(
        "FAE learned without the debiased loss, + weighting", learned=(("debiased", False),), actions=ABLATION_ACTIONS
    ),
    "far_none": Setting("far targets, no FAE", fae=False, targets="far"),
    "far": Setting("far targets, FAE + weighting", targets="far"),
    "far_refadapter": Setting("far targets, FAE + weighting + RefAdapter 0.7", refadapter=0.7, targets="far"),
    "other0": Setting("caption names another action, FAE, no weighting", alpha=0.0, words="other"),
    "other": Setting("caption names another action, FAE + weighting", words="other"),
    "other3": Setting("caption names another action, FAE + weighting, alpha 3", alpha=3.0, words="other"),
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

    base: object
    faes: dict[str, torch.Tensor]
    refadapter: object | None


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
    reference = shipped.reference_scene(action)
    draw = sample_far_target if setting.targets == "far" else sample_target
    cases = []
    for target in range(num_targets):
        scene = draw(target, reference)
        word: str | None = None
        if setting.words == "action":
            word = action
        elif setting.words == "other":
            others = [name for name in SEEN_ACTIONS if name not in (action, *ACTIONS[action].parts)]
            word = others[target % len(others)]
        for seed in range(num_seeds):
            cases.append(Case(action, target, scene, caption(scene, word), seed))
    return cases


@torch.no_grad()
def transfer_case(world: World, case: Case, *, steps: int = STEPS, scheduler: str = "DPM", **options) -> torch.Tensor:
    """Latents (1, 5, 16, 8, 8) of one case with its FAE and the weighting, as a node makes them: by transfer_action(),
    which takes the options."""
    from ..flexiact.fae import FAE
    from ..flexiact.schedule import MotionBias
    from ..flexiact.transfer import transfer_action

    picture, words = _encode_case(world, case)
    cpu = torch.device("cpu")
    return transfer_action(
        world.base, picture, words, words, faes=[(FAE(world.faes[case.action]), 1.0)], adapters=[], bias=MotionBias(),
        num_frames=NUM_FRAMES, steps=steps, cfg=1.0, scheduler=scheduler, seed=case.seed, device=cpu, **options,
    )  # fmt: skip


@torch.no_grad()
def sample_videos(
    world: World, cases: Sequence[Case], tokens: torch.Tensor | None, *, alpha: float = 1.0, refadapter: float = 0.0,
    steps: int = STEPS,
) -> np.ndarray:  # fmt: skip
    """The videos (N, 17, 64, 64, 3) in 0..1 of cases, made side by side.

    tokens: the FAE's (layers, M, width), or None. alpha: the weighting; refadapter: the RefAdapter's weight.
    """
    from ..cogvideox.model import decode_latents, pad_image_latents, sample_posterior
    from ..cogvideox.sampling import make_scheduler, sample
    from ..flexiact.attention import motion_kwargs, project_motion, with_motion_attention
    from ..flexiact.refadapter import with_refadapters
    from ..flexiact.schedule import MotionBias
    from ..video import to_frames

    base = world.base
    noises, images, prompts = [], [], []
    cpu = torch.device("cpu")
    for case in cases:
        generator = torch.Generator().manual_seed(case.seed + 1000 * case.target)
        picture, words = _encode_case(world, case)
        image = sample_posterior(picture, base.vae.config.scaling_factor, generator)
        images.append(pad_image_latents(image, 5))
        noises.append(torch.randn(images[-1].shape, generator=generator))
        prompts.append(words)
    transformer = base.transformer
    if refadapter:
        transformer = with_refadapters(transformer, [(world.refadapter, refadapter)], cpu, base.dtype)
    motion = None if tokens is None else project_motion(transformer, [(tokens.to(base.dtype), 1.0)])
    if motion is not None:
        transformer = with_motion_attention(transformer)
    words = torch.cat(prompts).to(base.dtype)
    latents = sample(
        transformer,
        make_scheduler(base.scheduler_config, "DPM"),
        torch.cat(noises),
        torch.cat(images),
        words,
        words,
        steps=steps,
        cfg=1.0,
        generator=torch.Generator().manual_seed(cases[0].seed),
        attention_kwargs=None if motion is None else motion_kwargs(motion, MotionBias(alpha)),
    )
    return np.stack([to_frames(decode_latents(base.vae, one[None], cpu)).numpy() for one in latents])


def _encode_case(world: World, case: Case):
    """The VAE's Posterior of a case's target picture, and the embeddings of its words."""
    from ..cogvideox.model import encode_pixels, encode_prompt
    from ..video import to_model_pixels

    base, cpu = world.base, torch.device("cpu")
    picture = torch.from_numpy(render_clip(case.scene, None).frames[:1])
    length = base.transformer.config.max_text_seq_length
    return (
        encode_pixels(base.vae, to_model_pixels(picture), cpu),
        encode_prompt(base.text_encoder, base.tokenizer, case.words, length, cpu),
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
            }
        )
    return records


def run_setting(world: World, setting: Setting, actions: Sequence[str], num_targets: int, num_seeds: int) -> list[dict]:
    """The records of one row of the table."""
    records = []
    for action in actions:
        if action not in setting.actions or (setting.words == "action" and action in UNSEEN_ACTIONS):
            continue
        cases = make_cases(action, setting, num_targets, num_seeds)
        if setting.name.startswith("oracle"):
            # The oracle knows no seeds.
            cases = [case for case in cases if case.seed == 0]
            videos = oracle_videos(world, cases)
        else:
            tokens = world.faes[action] if setting.fae else None
            if setting.learned:
                tokens = learn_action(world.base, action, settle_steps=FAE_SETTLE_STEPS, **dict(setting.learned))
            videos = sample_videos(world, cases, tokens, alpha=setting.alpha, refadapter=setting.refadapter)
        records += measure_cases(cases, videos)
    return records


def interval(records: Sequence[dict], value: str, num_draws: int = 2000) -> tuple[float, float, float]:
    """Mean and 95 % interval of a value, bootstrapped over targets; seeds of a target stay together."""
    by_target: dict[tuple, list[float]] = {}
    for record in records:
        by_target.setdefault((record["action"], record["target"]), []).append(record[value])
    means = np.array([np.mean(values) for values in by_target.values()])
    rng = np.random.default_rng(0)
    draws = means[rng.integers(len(means), size=(num_draws, len(means)))].mean(1)
    return float(means.mean()), float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


COMPARISONS = (
    ("weighted", "none"),
    ("weighted", "fae"),
    ("weighted3", "fae"),
    ("weighted3", "weighted"),
    ("refadapter", "weighted"),
    ("weighted", "uncut"),
    ("weighted", "undebiased"),
    ("far", "far_none"),
    ("far_refadapter", "far"),
    ("other", "other0"),
    ("other3", "other0"),
)

VALUES = ("slope", "cosine", "accuracy", "colour", "shape", "background", "right_shape")


def make_table(results: dict[str, list[dict]]) -> str:
    """The results as markdown: one row per setting and group of actions, then accuracy by action."""
    lines = ["| | actions | videos | " + " | ".join(VALUES) + " |", "|" + "---|" * (len(VALUES) + 3)]
    for key, records in results.items():
        for group, names in (("seen", SEEN_ACTIONS), ("never seen", UNSEEN_ACTIONS)):
            chosen = [record for record in records if record["action"] in names]
            if not chosen:
                continue
            cells = ["{:.3f} ({:.3f} to {:.3f})".format(*interval(chosen, value)) for value in VALUES]
            lines.append(f"| {SETTINGS[key].name} | {group} | {len(chosen)} | " + " | ".join(cells) + " |")
    lines += ["", "Nearest-action accuracy by action:", "", "| | " + " | ".join(ACTIONS) + " |"]
    lines.append("|" + "---|" * (len(ACTIONS) + 1))
    for key, records in results.items():
        cells = []
        for action in ACTIONS:
            chosen = [record["accuracy"] for record in records if record["action"] == action]
            cells.append(f"{np.mean(chosen):.2f}" if chosen else "")
        lines.append(f"| {SETTINGS[key].name} | " + " | ".join(cells) + " |")
    if "none" in results and "oracle" in results:
        lines += ["", "Share of the way from no FAE to the oracle, in slope:", ""]
        for key in results:
            setting = SETTINGS[key]
            if not setting.fae or setting.targets != "held out" or setting.words != "plain":
                continue
            for group, names in (("seen", SEEN_ACTIONS), ("never seen", UNSEEN_ACTIONS)):
                ends = [
                    np.mean([r["slope"] for r in results[k] if r["action"] in names] or [np.nan])
                    for k in ("none", key, "oracle")
                ]
                lines.append(f"- {setting.name}, {group}: {(ends[1] - ends[0]) / (ends[2] - ends[0]):.3f}")
    lines += ["", "Differences on the same targets and seeds (95 % interval over targets):", ""]
    for key, other in COMPARISONS:
        if key in results and other in results:
            for group, names in (("seen", SEEN_ACTIONS), ("never seen", UNSEEN_ACTIONS)):
                pairs = pair_differences(results[key], results[other], names)
                if pairs:
                    cells = [f"{v} {{:+.3f}} ({{:+.3f}} to {{:+.3f}})".format(*interval(pairs, v)) for v in VALUES[:3]]
                    lines.append(f"- {SETTINGS[key].name} - {SETTINGS[other].name}, {group}: " + ", ".join(cells))
    return "\n".join(lines) + "\n"


def pair_differences(records: Sequence[dict], others: Sequence[dict], actions: Sequence[str]) -> list[dict]:
    """The difference in every value, for the cases of some actions that two rows have in common."""
    by_case = {(other["action"], other["target"], other["seed"]): other for other in others}
    pairs = []
    for record in records:
        other = by_case.get((record["action"], record["target"], record["seed"]))
        if other is not None and record["action"] in actions:
            pairs.append(record | {value: record[value] - other[value] for value in VALUES})
    return pairs


def main(arguments: Sequence[str] | None = None) -> None:
    """Nothing; runs the rows asked for and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=shipped.WEIGHTS)
    parser.add_argument("--out", type=Path, default=Path("evaluation"))
    parser.add_argument("--rows", default=",".join(SETTINGS), help="comma separated: " + ", ".join(SETTINGS))
    parser.add_argument("--actions", default=",".join(ACTIONS))
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(chosen.threads)
    world = load_world(chosen.weights, getattr(torch, chosen.dtype))
    chosen.out.mkdir(parents=True, exist_ok=True)
    for key in chosen.rows.split(",") if chosen.rows else ():
        stored = chosen.out / f"{key}.json"
        if stored.exists():
            continue
        started = time.monotonic()
        records = run_setting(world, SETTINGS[key], chosen.actions.split(","), chosen.targets, chosen.seeds)
        stored.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")
        accuracy, slope = (np.mean([record[name] for record in records]) for name in ("accuracy", "slope"))
        log.info("%s: accuracy %.3f slope %.3f, %.0f s", key, accuracy, slope, time.monotonic() - started)
        (chosen.out / "evaluation.md").write_text(make_table(read_results(chosen.out)))
    log.info("%s\n%s", chosen.out / "evaluation.md", make_table(read_results(chosen.out)))


def read_results(folder: Path) -> dict[str, list[dict]]:
    """All rows measured so far into a folder, in the order of the table."""
    return {
        key: json.loads((folder / f"{key}.json").read_text()) for key in SETTINGS if (folder / f"{key}.json").exists()
    }


if __name__ == "__main__":
    main()
