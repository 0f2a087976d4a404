"""Trains ACT-VAE's pose predictor: python -m flexiact_core.act_vae.train_poses --help

With several GPUs: torchrun --nproc_per_node 2 -m flexiact_core.act_vae.train_poses ... (accelerate shares the
gradients; ACCELERATE_USE_CPU=true tries it without a GPU).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ..command_line import Processes, training_parser


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The settings on the command line."""
    parser = training_parser(
        "Learns how poses go on in actions.", "model", learning_rate=2e-3, batch="clips", steps=6000
    )  # fmt: skip
    parser.set_defaults(batch_size=64)
    parser.add_argument(
        "--data", type=Path, help="folder of POSE_KEYPOINT files by action, Penn Action's labels, or the authors' "
        "list; procedural figures by default",
    )  # fmt: skip
    parser.add_argument("--actions", default="", help="the actions to learn, commas between them; all by default")
    parser.add_argument("--latent", type=int, default=64, help="width of the latent; 512 is released")
    parser.add_argument("--kl", type=float, default=0.002, help="weight that keeps latents near normal noise")
    parser.add_argument("--pose-steps", type=int, default=4, help="poses to predict from one")
    parser.add_argument("--stride", type=int, default=3, help="frames from one pose of a clip to the next")
    parser.add_argument("--no-mirror", action="store_true", help="no clips as in a mirror")
    return parser.parse_args(arguments)


def train(settings: argparse.Namespace) -> Path:
    """The path of the model written; each of several processes calls this.

    Raises FileError and SettingError if files or settings cannot be used.
    """
    from .fit import fit_action_poses, measure_predictor, predictor_of
    from .loading import ACTVAE, save_act_vae
    from .training_data import read_training_data, split_names

    processes = Processes()
    data = read_training_data(
        settings.data, split_names(settings.actions), settings.pose_steps, settings.stride, not settings.no_mirror
    )
    learn = partial(
        fit_action_poses, data.draw, num_actions=len(data.names), latent=settings.latent, kl_weight=settings.kl
    )

    def fit(wrap, gradient_checkpointing, **how):
        return learn(share=processes.average, **how)

    state = processes.train(settings, fit)
    predictor = predictor_of(state)
    error, still = measure_predictor(predictor, *data.held_out)
    processes.say(f"held out: error {error:.2f} px of 128, standing still {still:.2f}")
    model = ACTVAE(predictor, data.names, data.steps, data.margin, name=settings.output.stem)
    about = {"steps_done": str(state.steps_done), "seed": str(settings.seed)}
    processes.finish(partial(save_act_vae, model, settings.output, about))
    return settings.output


if __name__ == "__main__":
    train(parse_arguments())
