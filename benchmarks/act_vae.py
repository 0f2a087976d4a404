"""How long ACT-VAE takes: `python -m benchmarks.act_vae`.

Prediction at the shipped and the released width, for one clip and for many; a training step as one pass of three times
the clips and as the authors' three passes; pictures at the released size, with random weights. Times are medians of
the rounds: on a CPU seconds that the process computed, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from benchmarks.measure import count_flops, time_side_by_side
from flexiact_core.act_vae.fit import start_predictor
from flexiact_core.act_vae.losses import KL_WEIGHT, POSE_WEIGHT, pose_loss
from flexiact_core.act_vae.model import RELEASED_LATENT, RELEASED_STEPS, ActionPoses, roll_out
from flexiact_core.act_vae.pose_to_image import NUM_JOINTS, PoseToImage

SHIPPED_LATENT = 64
MANY = 64
BATCH = 24
HEAD = ["| what | seconds | a clip or picture |", "|---|---|---|"]


def inputs(count: int, latent: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Poses, actions and noise of so many clips."""
    generator = torch.Generator().manual_seed(0)
    poses, action = torch.rand(count, 2 * NUM_JOINTS, generator=generator) - 0.5, torch.arange(count) % 9
    return poses, action, torch.randn(RELEASED_STEPS + 1, count, latent, generator=generator)


def predicting(model: ActionPoses, count: int, device: torch.device) -> Callable[[], object]:
    """A prediction of four steps for so many clips."""
    given = [part.to(device) for part in inputs(count, model.latent)]

    def work():
        with torch.no_grad():
            return roll_out(model, *given)

    return work


def learning(model: ActionPoses, passes: int, device: torch.device) -> Callable[[], object]:
    """Loss and gradients of 24 clips: in one pass of three times as many, or in the authors' three passes."""
    source, action, _ = (part.to(device) for part in inputs(BATCH, model.latent))
    targets = torch.zeros(BATCH, RELEASED_STEPS + 1, 2 * NUM_JOINTS, device=device)
    noise = torch.randn(3, RELEASED_STEPS + 1, BATCH, model.latent, device=device)

    def work():
        if passes == 1:
            pose_loss(model, source, targets, action, noise).total.backward()
            return
        loss = torch.zeros((), device=device)
        for draw in range(3):
            made = roll_out(model, source, action, noise[draw])
            loss = loss + POSE_WEIGHT * (made.poses - targets[:, :-1]).abs().mean()
            if draw == 0:
                spread = 1 + made.log_variance - made.mean.square() - made.log_variance.exp()
                loss = loss - 0.5 * KL_WEIGHT * spread.sum()
        loss.backward()

    return work


def painting(network: PoseToImage, device: torch.device, count: int = 4) -> Callable[[], object]:
    """Pictures of 128x128 pixels of so many poses."""
    image = torch.zeros(count, 3, 128, 128, device=device)
    maps = torch.zeros(count, NUM_JOINTS, 128, 128, device=device)
    action = torch.zeros(count, dtype=torch.long, device=device)

    def work():
        with torch.no_grad():
            return network(image, maps, maps, action)

    return work


def table(device: torch.device, rounds: int, image_rounds: int) -> list[str]:
    """The rows, a line each."""
    rows = []
    for latent in (SHIPPED_LATENT, RELEASED_LATENT):
        model = start_predictor(9, latent, torch.Generator().manual_seed(0)).to(device)
        sides = {
            (f"predict, latent {latent}, 1 clip", 1): predicting(model, 1, device),
            (f"predict, latent {latent}, {MANY} clips", MANY): predicting(model, MANY, device),
            (f"training step, latent {latent}, {BATCH} clips, ours: one pass", BATCH): learning(model, 1, device),
            (f"training step, latent {latent}, {BATCH} clips, three passes", BATCH): learning(model, 3, device),
        }
        rows += rows_of(sides, device, rounds)
    if image_rounds:
        network = PoseToImage().to(device).eval()
        rows += rows_of({("4 pictures, released size", 4): painting(network, device)}, device, image_rounds)
        with torch.device("meta"):
            meta = PoseToImage().eval()
        flops = count_flops(painting(meta, torch.device("meta"), 1))
        rows.append(f"| operations of a picture, released size | {flops / 1e9:.1f} G |  |")
    return rows


def rows_of(sides: dict, device: torch.device, rounds: int) -> list[str]:
    """A row for each side; the sides take turns."""
    seconds = time_side_by_side(sides, device, rounds)
    return [
        f"| {name} | {statistics.median(found):.4f} | {statistics.median(found) / count:.5f} |"
        for (name, count), found in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--image-rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("\n".join(HEAD + table(torch.device(options.device), options.rounds, options.image_rounds)))


if __name__ == "__main__":
    main()
