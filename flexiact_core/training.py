"""One loop for all that learns: its state, resuming, stopping, and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .errors import FileError, SettingError
from .weight_files import read_metadata, read_tensors, write_tensors


class StopTraining(Exception):
    """Ends a training that it is raised in, and keeps what was learned so far."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """All that a training needs to go on: what was learned, the optimizer's moments, and the random state.

    parameters and moments are float32 on the CPU; losses holds one value for each step done.
    """

    parameters: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    generator: Tensor
    losses: Tensor

    @property
    def steps_done(self) -> int:
        return len(self.losses)


@dataclass(frozen=True)
class Recipe:
    """AdamW as a method's authors set it; gradients are cut to the norm gradient_clip, or with None not at all.

    The defaults are FlexiAct's. usual_rate is the learning rate that a message names.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-4
    gradient_clip: float | None = 1.0
    usual_rate: float = 0.003


DEFAULT_RECIPE = Recipe()

OnStep = Callable[[int, float, Callable[[], TrainingState]], None]


def save_state(state: TrainingState, path: Path, metadata: Mapping[str, str]) -> Path:
    """The checkpoint written, whole or not at all. Raises FileError if it could not be written."""
    tensors = {f"learned/{key}": value for key, value in state.parameters.items()}
    tensors |= {f"moments/{key}": value for key, value in state.moments.items()}
    tensors |= {"generator": state.generator, "losses": state.losses}
    return write_tensors(tensors, path, metadata)


def load_state(path: Path) -> tuple[TrainingState, dict[str, str]]:
    """The state and the metadata of a checkpoint. Raises FileError if it is damaged or of something else."""
    tensors = read_tensors(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

    parameters, moments = part("learned/"), part("moments/")
    if not parameters or len(moments) != 2 * len(parameters) or not {"generator", "losses"} <= tensors.keys():
        raise FileError(f"{Path(path).name}: this is no checkpoint of a training. Choose another file.")
    return TrainingState(parameters, moments, tensors["generator"], tensors["losses"]), read_metadata(path)


def check_training_settings(steps: int, learning_rate: float, batch_size: int, recipe: Recipe = DEFAULT_RECIPE) -> None:
    """Nothing, if training can run with these settings. Raises SettingError otherwise."""
    if steps < 1:
        raise SettingError(f"steps {steps}: at least 1 is needed.")
    if batch_size < 1:
        raise SettingError(f"batch_size {batch_size}: at least 1 is needed.")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise SettingError(
            f"learning_rate {learning_rate}: a number above 0 is needed. The method uses {recipe.usual_rate:g}."
        )


def descend(
    parameters: Mapping[str, torch.nn.Parameter],
    compute_loss: Callable[[], Tensor],
    generator: torch.Generator,
    *,
    steps: int,
    learning_rate: float,
    resume: TrainingState | None,
    on_step: OnStep | None,
    stop_on: tuple[type[BaseException], ...],
    recipe: Recipe = DEFAULT_RECIPE,
) -> TrainingState:
    leaves = list(parameters.values())
    optimizer = torch.optim.AdamW(leaves, lr=learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay)
    losses: list[float] = []
    if resume is not None:
        _restore(resume, parameters, optimizer)
        generator.set_state(resume.generator)
        losses = resume.losses.tolist()

    def take_state() -> TrainingState:
        return _snapshot(parameters, optimizer, generator, losses)

    for step in range(len(losses), steps):
        random_state = generator.get_state()
        try:
            loss = compute_loss()
            if not math.isfinite(loss.item()):
                raise SettingError(
                    f"training: the loss is no longer a number at step {step + 1}. Use a smaller learning rate than "
                    f"{learning_rate:g}."
                )
            loss.backward()
            if recipe.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(leaves, recipe.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if on_step is not None:
                on_step(step, losses[-1], take_state)
        except stop_on:
            if len(losses) == step:
                # Stopped half way through a step: whoever resumes draws the same batch again.
                generator.set_state(random_state)
            break
    return take_state()


def _snapshot(parameters, optimizer, generator: torch.Generator, losses: list[float]) -> TrainingState:
    learned = {key: value.detach().float().cpu().clone() for key, value in parameters.items()}
    moments = {}
    for key, value in parameters.items():
        for moment in ("exp_avg", "exp_avg_sq"):
            stored = optimizer.state[value].get(moment)
            stored = torch.zeros_like(learned[key]) if stored is None else stored.detach().cpu().clone()
            moments[f"{moment}/{key}"] = stored
    return TrainingState(learned, moments, generator.get_state(), torch.tensor(losses, dtype=torch.float64))


def _restore(state: TrainingState, parameters, optimizer) -> None:
    for key, value in parameters.items():
        stored = state.parameters.get(key)
        if stored is None or stored.shape != value.shape:
            found = "nothing" if stored is None else list(stored.shape)
            raise FileError(
                f"resume: the checkpoint is of another base or size ({key}: {list(value.shape)} expected, {found} "
                "found). Start anew under another name, or load the base it was made with."
            )
        value.data.copy_(stored)
        optimizer.state[value] = {
            "step": torch.tensor(float(state.steps_done)),
            "exp_avg": state.moments[f"exp_avg/{key}"].to(value.device).clone(),
            "exp_avg_sq": state.moments[f"exp_avg_sq/{key}"].to(value.device).clone(),
        }
