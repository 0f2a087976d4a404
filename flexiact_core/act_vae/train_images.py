"""Trains ACT-VAE's pose-to-image network: python -m flexiact_core.act_vae.train_images --help

One file comes out, with the pose predictor that was given, the image generator and its critic.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..command_line import Processes, training_parser
from .build import SHIPPED
from .fit_images import STEPS_PER_ITERATION, DrawPictures, ImageSizes, fit_pose_to_image, states_of_images
from .loading import ACTVAE, load_act_vae, make_model, save_act_vae, states_of
from .losses import check_vgg


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The settings on the command line."""
    parser = training_parser(
        "Trains ACT-VAE's pose-to-image network on a list of the authors'.", "model", steps=80000, learning_rate=2e-4,
        batch="clips per iteration, which is 4 steps; the authors took 24", batch_size=24,
    )  # fmt: skip
    parser.add_argument("--list", type=Path, required=True, help="the authors' list, such as training_pair_penn5.txt")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of Penn Action's frames")
    parser.add_argument("--model", type=Path, default=SHIPPED, help="pose predictor: file or folder")
    parser.add_argument("--vgg", type=Path, help="torchvision's vgg19-dcbb9e9d.pth; without it that loss is left out")
    parser.add_argument("--width", type=int, default=64, help="of the networks; 64 is released, 8 tries it out")
    parser.add_argument("--blocks", type=int, default=9, help="of the generator; 9 is released")
    parser.add_argument("--side", type=int, default=128, help="of the pictures in pixels, a multiple of 8")
    return parser.parse_args(arguments)


def train(settings: argparse.Namespace) -> Path:
    """The path of the model written. Raises FileError and SettingError if files or settings cannot be used."""
    from ..errors import SettingError
    from ..weight_files import read_tensors

    if settings.side % 8 or settings.side < 8:
        raise SettingError(f"side {settings.side}: a multiple of 8 is needed. The released value is 128.")
    processes = Processes()
    if processes.shard[1] > 1:
        # Batch normalisation counts over a batch: two halves of one are not the whole.
        raise SettingError("train_images: one process alone. Start it with --num_processes 1.")
    model = load_act_vae(settings.model)
    draw = draw_from_list(settings.list, settings.pictures, settings.batch_size, settings.side, len(model.actions))
    vgg = None if settings.vgg is None else check_vgg(settings.vgg.name, read_tensors(settings.vgg))
    if vgg is None:
        processes.say("no --vgg file: the perceptual loss is left out")
    sizes = ImageSizes(settings.width, settings.blocks, settings.width, 3)

    state = processes.train(settings, partial(fit_pose_to_image, draw, model, sizes=sizes, vgg=vgg))
    processes.say(f"{state.steps_done // STEPS_PER_ITERATION} iterations")
    learned = with_images(model, states_of_images(state))
    processes.finish(partial(save_act_vae, learned, settings.output, {"steps_done": str(state.steps_done)}))
    return settings.output


def draw_from_list(path: Path, pictures: Path, count: int, side: int, num_actions: int) -> DrawPictures:
    """A function that draws `count` clips of a list at random, with their pictures of `side` pixels.

    Raises FileError if the list cannot be read, SettingError if it has an action that the model does not have.
    """
    import torch

    from ..errors import SettingError
    from .pictures import read_clip
    from .released_list import read_rows

    rows = read_rows(path)
    highest = max(row.action for row in rows)
    if highest >= num_actions:
        raise SettingError(
            f"{path.name}: its actions go up to number {highest}, the pose predictor has {num_actions}. Give the "
            "predictor that was trained on this list."
        )

    def draw(generator):
        chosen = torch.randint(len(rows), (count,), generator=generator).tolist()
        return [read_clip(rows[number], pictures, side) for number in chosen]

    return draw


def with_images(model: ACTVAE, images) -> ACTVAE:
    """The model with the networks of states_of_images() in place of its own."""
    made = make_model({**states_of(model), **images}, actions=model.actions, name=model.name)
    return replace(model, generator=made.generator, critic=made.critic)


if __name__ == "__main__":
    train(parse_arguments())
