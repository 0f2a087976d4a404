"""Trains ACT-VAE's pose predictor: python -m flexiact_core.act_vae.train_poses --help

With several GPUs: accelerate launch --multi_gpu --num_processes 2 -m flexiact_core.act_vae.train_poses ...
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..command_line import Processes, training_parser

if TYPE_CHECKING:
    from ..training import TrainingState


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The settings on the command line."""
    parser = training_parser(
        "Trains ACT-VAE's pose predictor: how poses go on in actions.", "model", steps=6000, learning_rate=2e-3,
        batch="clips per step and process; the authors took 24", batch_size=64,
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, help="folder with a folder of POSE_KEYPOINT .json files for each action, Penn Action's "
        "labels (.mat), or the authors' list; figures by default",
    )  # fmt: skip
    parser.add_argument("--actions", default="", help="the actions to learn, commas between them; all by default")
    parser.add_argument("--start-from", type=Path, help="model of the same actions and latent to go on from")
    parser.add_argument("--latent", type=int, default=64, help="width of the latent; the authors took 512")
    parser.add_argument("--pose-steps", type=int, default=4, help="poses to predict from one; the authors took 4")
    parser.add_argument("--stride", type=int, default=3, help="frames from one pose of a clip to the next")
    parser.add_argument("--no-mirror", action="store_true", help="no clips as in a mirror")
    parser.add_argument("--kl", type=float, default=0.002, help="weight that keeps latents near normal noise")
    parser.add_argument("--measure-every", type=int, default=500, help="steps between two measures; 0: at the end only")
    return parser.parse_args(arguments)


def train(settings: argparse.Namespace) -> Path:
    """The path of the model written; each of several processes calls this.

    Raises FileError and SettingError if files or settings cannot be used.
    """
    from .fit import fit_action_poses, predictor_of
    from .loading import ACTVAE, load_act_vae, save_act_vae
    from .training_data import measure_state, read_training_data, split_names

    processes = Processes()
    data = read_training_data(
        settings.data, split_names(settings.actions), settings.pose_steps, settings.stride, not settings.no_mirror
    )
    for note in data.notes:
        processes.say(note)
    first = None if settings.start_from is None else load_act_vae(settings.start_from).predictor
    fit = partial(
        fit_action_poses, data.draw, num_actions=len(data.names), latent=settings.latent, kl_weight=settings.kl,
        start_from=first,
    )  # fmt: skip

    def measure(index: int, loss: float, take_state: Callable[[], TrainingState]) -> None:
        if settings.measure_every and (index + 1) % settings.measure_every == 0:
            processes.say(measure_state(data, take_state()))

    state = processes.train(settings, fit, [measure])
    processes.say(measure_state(data, state))
    model = ACTVAE(predictor_of(state), data.names, data.steps, data.margin, name=settings.output.stem)
    about = {"steps_done": str(state.steps_done), "seed": str(settings.seed)}
    processes.finish(partial(save_act_vae, model, settings.output, about))
    return settings.output


if __name__ == "__main__":
    train(parse_arguments())
