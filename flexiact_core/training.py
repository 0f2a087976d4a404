"""One loop for all that learns, whatever it is: descend().

A training brings its parameters, by key, and a function that gives the loss of one step. One that moves several
networks brings a Turn for each kind of step: its own loss, and the keys that it moves by an optimizer of their own.
Recipe says how the optimizers work, Course how one training runs. The loop owns the rest: it draws nothing itself, so
that a state (TrainingState: parameters, moments, buffers, losses, and the generator that the losses draw from) resumes
bit for bit; it stops where an exception of `stop_on` is raised, in a step or after it; and it reports after each step
through OnStep, by which checkpoints (Checkpoint), samples and progress follow. Several of them become one by follow().
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .errors import FileError, SettingError
from .weight_files import read_metadata, read_tensors, write_tensors


@dataclass(frozen=True)
class Recipe:
    """Adam as a method's authors set it; gradients are cut to the norm gradient_clip, or with None not at all.

    decoupled takes weight_decay off the weights themselves (AdamW), else it is added to the gradients (Adam). With
    halve_every the learning rate is half as high after each of so many steps, counted before the update.
    The defaults are FlexiAct's. usual_rate is the learning rate that a message names.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-4
    gradient_clip: float | None = 1.0
    usual_rate: float = 0.003
    decoupled: bool = True
    halve_every: int = 0

    def optimizer(self, leaves: Sequence[torch.nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        """The optimizer of some parameters."""
        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        return kind(leaves, lr=learning_rate, betas=self.betas, weight_decay=self.weight_decay)

    def learning_rate(self, first: float, step: int) -> float:
        """The learning rate of step number `step` (from 1), where the first is `first`."""
        return first * 0.5 ** (step // self.halve_every) if self.halve_every else first


DEFAULT_RECIPE = Recipe()


@dataclass(frozen=True)
class Turn:
    """One of several kinds of step that a training takes in turns: what its loss is, and the keys that it moves."""

    compute_loss: Callable[[], Tensor]
    keys: tuple[str, ...]


class StopTraining(Exception):
    """Ends a training that it is raised in, and keeps what was learned so far."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """All that a training needs to go on: what was learned, the optimizer's moments, and the random state.

    parameters and moments are float32 on the CPU; losses holds one value for each step done. buffers are what a
    module counts while it is trained, such as the statistics of batch normalisation.
    """

    parameters: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    generator: Tensor
    losses: Tensor
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def steps_done(self) -> int:
        return len(self.losses)


OnStep = Callable[[int, float, Callable[[], TrainingState]], None]
Share = Callable[[Sequence[torch.nn.Parameter]], None]


def save_state(state: TrainingState, path: Path, metadata: Mapping[str, str]) -> Path:
    """The checkpoint written, whole or not at all. Raises FileError if it could not be written."""
    tensors = {f"learned/{key}": value for key, value in state.parameters.items()}
    tensors |= {f"moments/{key}": value for key, value in state.moments.items()}
    tensors |= {f"buffers/{key}": value for key, value in state.buffers.items()}
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
    state = TrainingState(parameters, moments, tensors["generator"], tensors["losses"], part("buffers/"))
    return state, read_metadata(path)


@dataclass(frozen=True)
class Checkpoint:
    """The file in which a training keeps its state, written after every so many steps. says is in its metadata."""

    path: Path
    every: int
    says: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> TrainingState | None:
        """The state kept there, None if there is none. Raises FileError with the way out if it cannot be read."""
        if not self.path.exists():
            return None
        try:
            return load_state(self.path)[0]
        except FileError as error:
            raise FileError(
                f"{self.path.name}: this checkpoint of the training is damaged or empty. Turn resume off to start "
                f"anew, or delete it; it lies in the folder {self.path.parent.name}."
            ) from error

    def save(self, state: TrainingState) -> Path:
        """The file written, whole or not at all. Raises FileError if it could not be written."""
        return save_state(state, self.path, {**self.says, "steps_done": str(state.steps_done)})

    def on_step(self, index: int, loss: float, take_state: Callable[[], TrainingState]) -> None:
        """Saves when it is due; an OnStep."""
        if (index + 1) % self.every == 0:
            self.save(take_state())


def follow(*listeners: OnStep) -> OnStep:
    """One OnStep that calls several, in their order."""

    def on_step(index: int, loss: float, take_state: Callable[[], TrainingState]) -> None:
        for listener in listeners:
            listener(index, loss, take_state)

    return on_step


@dataclass(frozen=True, eq=False)
class Course:
    """How one training runs, whatever it learns.

    learning_rate is the first; batch_size is that of one process. `resume` is gone on from, bit for bit as if it had
    never stopped. on_step is called after each step with its index, its loss and a function that gives the state.
    Exceptions of stop_on, raised there or in a step, end the training with the state after the last whole step. With
    gradient_checkpointing activations are computed twice and not kept.
    With several processes, `shard` is this one's number and their count: each draws the same whole batch and computes
    its part of it; and `share` puts the mean over all of them in place of each gradient, so that the result is that of
    one process with the whole batch.
    """

    steps: int
    learning_rate: float
    seed: int
    device: torch.device
    batch_size: int = 1
    gradient_checkpointing: bool = False
    resume: TrainingState | None = None
    on_step: OnStep | None = None
    stop_on: tuple[type[BaseException], ...] = (StopTraining,)
    share: Share | None = None
    shard: tuple[int, int] = (0, 1)

    def check(self, recipe: Recipe = DEFAULT_RECIPE) -> None:
        """Passes if training can run so. Raises SettingError otherwise."""
        check_training_settings(self.steps, self.learning_rate, self.batch_size, recipe)

    def generator(self) -> torch.Generator:
        """What all of a training's randomness is drawn from."""
        return torch.Generator().manual_seed(self.seed)

    @property
    def whole_batch(self) -> int:
        """The size of a batch over all processes."""
        return self.batch_size * self.shard[1]

    @property
    def own_part(self) -> slice:
        """Which of the whole batch this process computes."""
        number = self.shard[0]
        return slice(number * self.batch_size, (number + 1) * self.batch_size)


def check_training_settings(steps: int, learning_rate: float, batch_size: int, recipe: Recipe = DEFAULT_RECIPE) -> None:
    """Passes if training can run with these settings. Raises SettingError otherwise."""
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
    compute_loss: Callable[[], Tensor] | Sequence[Turn],
    generator: torch.Generator,
    course: Course,
    *,
    recipe: Recipe = DEFAULT_RECIPE,
    buffers: Mapping[str, Tensor] | None = None,
) -> TrainingState:
    """The state after the course's steps of gradient descent on `parameters`, which are changed, as are `buffers`.

    compute_loss gives the loss of one step and draws from `generator` alone; or it is a sequence of turns, one step
    each, that begin anew after the last.
    Raises SettingError if the loss is no longer a number, FileError if what is resumed is of other parameters.
    """
    descent = _Descent(parameters, compute_loss, generator, course, recipe, buffers or {})
    if course.resume is not None:
        descent.restore(course.resume)
    for step in range(len(descent.losses), course.steps):
        random_state = generator.get_state()
        try:
            descent.take_step()
            if course.on_step is not None:
                course.on_step(step, descent.losses[-1], descent.take_state)
        except course.stop_on:
            if len(descent.losses) == step:
                # Stopped half way through a step: whoever resumes draws the same batch again.
                generator.set_state(random_state)
            break
    return descent.take_state()


class _Descent:
    """What moves from step to step: parameters with an optimizer for each kind of turn, and the losses so far."""

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        compute_loss: Callable[[], Tensor] | Sequence[Turn],
        generator: torch.Generator,
        course: Course,
        recipe: Recipe,
        buffers: Mapping[str, Tensor],
    ):
        self.parameters, self.generator, self.buffers = parameters, generator, buffers
        self.recipe, self.first_rate, self.share = recipe, course.learning_rate, course.share
        self.turns = [Turn(compute_loss, tuple(parameters))] if callable(compute_loss) else list(compute_loss)
        self.optimizers = {
            turn.keys: recipe.optimizer([parameters[key] for key in turn.keys], self.first_rate) for turn in self.turns
        }
        self.losses: list[float] = []

    def take_step(self) -> None:
        """One turn: its loss, its gradients, its update. Raises SettingError if the loss is no longer a number."""
        step = len(self.losses)
        turn, rounds = self.turns[step % len(self.turns)], step // len(self.turns)
        loss = turn.compute_loss()
        if not math.isfinite(loss.item()):
            raise SettingError(
                f"training: the loss is no longer a number at step {step + 1}. Use a smaller learning rate than "
                f"{self.first_rate:g}."
            )
        loss.backward()
        moved = [self.parameters[key] for key in turn.keys]
        if self.share is not None:
            self.share(moved)
        if self.recipe.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(moved, self.recipe.gradient_clip)
        optimizer = self.optimizers[turn.keys]
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(self.first_rate, rounds + 1)
        optimizer.step()
        # A loss may have reached what another turn moves.
        for parameter in self.parameters.values():
            parameter.grad = None
        self.losses.append(loss.item())

    def take_state(self) -> TrainingState:
        """A copy of everything, on the CPU."""
        learned = {key: value.detach().float().cpu().clone() for key, value in self.parameters.items()}
        moments = {}
        for keys, optimizer in self.optimizers.items():
            for key in keys:
                for moment in ("exp_avg", "exp_avg_sq"):
                    stored = optimizer.state[self.parameters[key]].get(moment)
                    stored = torch.zeros_like(learned[key]) if stored is None else stored.detach().cpu().clone()
                    moments[f"{moment}/{key}"] = stored
        counted = {key: value.detach().cpu().clone() for key, value in self.buffers.items()}
        losses = torch.tensor(self.losses, dtype=torch.float64)
        return TrainingState(learned, moments, self.generator.get_state(), losses, counted)

    def restore(self, state: TrainingState) -> None:
        """Goes back to a state. Raises FileError if it is of other parameters."""
        for key, value in (*self.parameters.items(), *self.buffers.items()):
            stored = state.parameters.get(key, state.buffers.get(key))
            if stored is None or stored.shape != value.shape:
                found = "nothing" if stored is None else list(stored.shape)
                raise FileError(
                    f"resume: the checkpoint is of another base or size ({key}: {list(value.shape)} expected, {found} "
                    "found). Start anew under another name, or load the base it was made with."
                )
            value.data.copy_(stored)
        for keys, optimizer in self.optimizers.items():
            updates = sum(self.turns[step % len(self.turns)].keys == keys for step in range(state.steps_done))
            for key in keys if updates else ():
                value = self.parameters[key]
                optimizer.state[value] = {
                    "step": torch.tensor(float(updates)),
                    "exp_avg": state.moments[f"exp_avg/{key}"].to(value.device).clone(),
                    "exp_avg_sq": state.moments[f"exp_avg_sq/{key}"].to(value.device).clone(),
                }
        self.generator.set_state(state.generator)
        self.losses = state.losses.tolist()
