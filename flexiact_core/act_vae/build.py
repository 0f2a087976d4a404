"""The shipped weights from nothing: `python -m flexiact_core.act_vae.build`. A few minutes of one core.

All that they learn from is drawn by figures.py.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F

from ..training import Course, Recipe, descend
from .figures import ACTIONS, draw_figures
from .fit import fit_action_poses, predictor_of
from .judge import PoseJudge
from .loading import ACTVAE, save_act_vae
from .measure import held_out_figures, measure_poses

LATENT, STEPS, MARGIN = 64, 8, 0.35
# Clips that begin in the middle of another action make the word win over the pose.
NEUTRAL, CROSSED = 0.5, 0.25
RECIPE = Recipe(betas=(0.5, 0.999), weight_decay=0.0, gradient_clip=None, usual_rate=2e-3, decoupled=False)
SHIPPED = Path(__file__).parent.parent / "world" / "weights" / "act_vae" / "figures.safetensors"


def build_model(steps: int = 8000, judge_steps: int = 3000, seed: int = 0, report=print) -> ACTVAE:
    """A judge and a predictor, both learned from procedural figures; report is called with a line now and then."""
    judge = _learn_judge(judge_steps, seed + 1, report)
    model = None
    # The learning rate falls in three parts, each of which goes on from the last.
    for part, (share, rate) in enumerate(((0.5, 2e-3), (0.3, 6e-4), (0.2, 2e-4))):
        course = Course(
            max(1, round(steps * share)), rate, seed + part, torch.device("cpu"), batch_size=64,
            on_step=lambda step, loss, _: step % 500 == 0 and report(f"poses {step}: loss {loss:.2f}"),
        )  # fmt: skip
        state = fit_action_poses(
            draw_lessons, course, num_actions=len(ACTIONS), latent=LATENT, recipe=RECIPE, start_from=model
        )
        model = predictor_of(state)
    return ACTVAE(model, tuple(ACTIONS), STEPS, MARGIN, judge=judge, name="figures")


def measure(model: ACTVAE, num_clips: int = 2000) -> dict[str, dict]:
    """The measures on held-out figures: half of them from the stance, all of them from it, none of them."""
    found = {}
    for name, neutral in (("mixed", 0.5), ("neutral", 1.0), ("amid", 0.0)):
        clips = held_out_figures(num_clips, STEPS, neutral)
        found[name] = asdict(measure_poses(model, clips.poses, clips.action))
    return found


def draw_lessons(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """So many clips to learn from, (count, STEPS + 2, 26), and their actions."""
    clips = draw_figures(count, STEPS + 2, generator, neutral=NEUTRAL, crossed=CROSSED)
    return clips.poses, clips.action


def _learn_judge(steps: int, seed: int, report) -> PoseJudge:
    generator = torch.Generator().manual_seed(seed)
    judge = PoseJudge(len(ACTIONS))
    with torch.no_grad():
        for layer in (*judge.layers, judge.verdict):
            reach = layer.in_features**-0.5
            layer.weight.copy_((torch.rand(layer.weight.shape, generator=generator) * 2 - 1) * reach)
            layer.bias.zero_()

    def compute_loss():
        clips = draw_figures(256, STEPS + 1, generator, neutral=NEUTRAL, crossed=CROSSED)
        return F.cross_entropy(judge(clips.poses), clips.action)

    course = Course(
        steps, 2e-3, seed, torch.device("cpu"),
        on_step=lambda step, loss, _: step % 500 == 0 and report(f"judge {step}: loss {loss:.3f}"),
    )  # fmt: skip
    recipe = Recipe(weight_decay=0.0, gradient_clip=None, decoupled=False, halve_every=max(1, steps // 4))
    descend(dict(judge.named_parameters()), compute_loss, generator, course, recipe=recipe)
    return judge.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--judge-steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build_model(options.steps, options.judge_steps, options.seed, report=lambda line: print(line, flush=True))
    print(save_act_vae(model, options.out, {"made_of": "procedural figures"}, torch.float16))
    print(json.dumps(measure(model), indent=1))


if __name__ == "__main__":
    main()
