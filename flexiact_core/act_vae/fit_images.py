"""Learning P2I: the generator against its critic, with a pose predictor that stays as it is.

Shape letters: B clips, S side of the pictures in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..training import Course, TrainingState, Turn, descend
from .fit import RELEASED_RECIPE
from .loading import ACTVAE, CRITIC, GENERATOR, PREFIXES
from .losses import adversarial_loss, critic_loss, generator_losses
from .model import RELEASED_STEPS, roll_out
from .pictures import PictureClip
from .pose_to_image import PoseCritic, PoseToImage, draw_heat_maps, start_weights

# One iteration of the authors: the critic learns twice, then the generator.
STEPS_PER_ITERATION = 4

DrawPictures = Callable[[torch.Generator], list[PictureClip]]


@dataclass(frozen=True)
class ImageSizes:
    """Widths and numbers of blocks of both networks; these are the released ones."""

    width: int = 64
    blocks: int = 9
    critic_width: int = 64
    critic_blocks: int = 3


@dataclass(frozen=True, eq=False)
class _Iteration:
    """What the four steps of an iteration share: maps are of the true pose, guessed ones of the predictor's."""

    source: Tensor
    action: Tensor
    source_maps: Tensor
    target: Tensor
    maps: Tensor
    person: Tensor
    later: Tensor
    later_maps: Tensor
    guessed_maps: Tensor


def fit_pose_to_image(
    draw_pictures: DrawPictures,
    model: ACTVAE,
    course: Course,
    *,
    sizes: ImageSizes = ImageSizes(),
    vgg: Mapping[str, Tensor] | None = None,
) -> TrainingState:
    """The state after the course, four steps of which are one of the authors' iterations; networks_of() reads it.

    draw_pictures gives the clips of one iteration and draws from the generator it is given alone. The first two steps
    of four teach the critic, on a true pose and on one that the model predicts, the others the generator.
    Raises as training.descend() does.
    """
    course.check(RELEASED_RECIPE)
    generator, device = course.generator(), course.device
    networks = _new_networks(len(model.actions), sizes, generator, device)
    vgg = None if vgg is None else {key: value.to(device) for key, value in vgg.items()}
    done = 0 if course.resume is None else course.resume.steps_done
    lessons = _Lessons(networks, draw_pictures, model.predictor.to(device), course.seed, device, vgg, done)
    parameters = _by_key(networks, "named_parameters")
    return descend(
        parameters, lessons.turns(parameters), generator, course, recipe=RELEASED_RECIPE,
        buffers=_by_key(networks, "named_buffers"),
    )  # fmt: skip


class _Lessons:
    """The four steps of each iteration, over the same clips."""

    def __init__(self, networks: Mapping, draw_pictures: DrawPictures, predictor, seed: int, device, vgg, done: int):
        self.painter, self.critic = networks[GENERATOR], networks[CRITIC]
        self.draw_pictures, self.predictor, self.device, self.vgg = draw_pictures, predictor, device, vgg
        self.seed, self.done = seed, done
        self.number, self.now = -1, None

    def turns(self, keys: Iterable[str]) -> list[Turn]:
        """Critic, critic, generator, generator: each on a true pose first."""
        of = {kind: tuple(key for key in keys if key.startswith(PREFIXES[kind])) for kind in (CRITIC, GENERATOR)}
        return [
            Turn(lambda: self.teach_critic(False), of[CRITIC]),
            Turn(lambda: self.teach_critic(True), of[CRITIC]),
            Turn(lambda: self.teach_painter(False), of[GENERATOR]),
            Turn(lambda: self.teach_painter(True), of[GENERATOR]),
        ]

    def iteration(self) -> _Iteration:
        """The clips of the current iteration; counts one step."""
        number = self.done // STEPS_PER_ITERATION
        if number != self.number:
            # Drawn by its number, so that a training that is resumed between its four steps draws it again.
            own = torch.Generator().manual_seed(self.seed + 1 + number)
            self.number, self.now = number, _prepare(self.draw_pictures(own), self.predictor, own, self.device)
        self.done += 1
        return self.now

    def teach_critic(self, guessed: bool) -> Tensor:
        now = self.iteration()
        maps, real, real_maps = _case(now, guessed)
        # The authors let the gradient run on into the generator, and then set it to nothing.
        with torch.no_grad():
            made = self.painter(now.source, now.source_maps, maps, now.action)
        return critic_loss(self.critic, made, maps, real, real_maps)

    def teach_painter(self, guessed: bool) -> Tensor:
        now = self.iteration()
        maps, real, _ = _case(now, guessed)
        made = self.painter(now.source, now.source_maps, maps, now.action)
        if guessed:
            return adversarial_loss(self.critic, made, maps)
        return sum(generator_losses(self.critic, made, real, maps, now.person, self.vgg).values())


def states_of_images(state: TrainingState) -> dict[str, dict[str, Tensor]]:
    """The states of generator and critic under the release's keys, for loading.make_model()."""
    tensors = {**state.parameters, **state.buffers}
    return {
        kind: {key.removeprefix(PREFIXES[kind]): value for key, value in tensors.items()
               if key.startswith(PREFIXES[kind])}
        for kind in (GENERATOR, CRITIC)
    }  # fmt: skip


def _new_networks(num_actions: int, sizes: ImageSizes, generator: torch.Generator, device) -> dict:
    networks = {
        GENERATOR: PoseToImage(num_actions, sizes.width, sizes.blocks),
        CRITIC: PoseCritic(sizes.critic_width, sizes.critic_blocks),
    }
    for network in networks.values():
        start_weights(network, generator)
        network.to(device).train()
    return networks


def _by_key(networks: Mapping, which: str) -> dict:
    found = ((kind, *item) for kind, network in networks.items() for item in getattr(network, which)())
    return {f"{PREFIXES[kind]}{key}": value for kind, key, value in found}


def _case(now: _Iteration, guessed: bool) -> tuple[Tensor, Tensor, Tensor]:
    return (now.guessed_maps, now.later, now.later_maps) if guessed else (now.maps, now.target, now.maps)


def _prepare(clips: list[PictureClip], predictor, generator: torch.Generator, device) -> _Iteration:
    """One random true target of five, and one random step of four of the predictor with the true target after it."""
    pictures, poses = torch.stack([clip.pictures for clip in clips]), torch.stack([clip.poses for clip in clips])
    people, action = torch.stack([clip.people for clip in clips]), torch.tensor([clip.action for clip in clips])
    target = int(torch.randint(pictures.shape[1] - 1, (), generator=generator))
    index = int(torch.randint(RELEASED_STEPS, (), generator=generator))
    noise = torch.randn(RELEASED_STEPS + 1, len(clips), predictor.latent, generator=generator)
    with torch.no_grad():
        source = poses[:, 0].flatten(1).to(device)
        guessed = roll_out(predictor, source, action.to(device), noise.to(device)).poses[:, index]
    side = pictures.shape[-1]
    return _Iteration(
        pictures[:, 0].to(device),
        action.to(device),
        draw_heat_maps(poses[:, 0].to(device), side),
        pictures[:, 1 + target].to(device),
        draw_heat_maps(poses[:, 1 + target].to(device), side),
        people[:, target].to(device),
        pictures[:, 1 + index].to(device),
        draw_heat_maps(poses[:, 1 + index].to(device), side),
        draw_heat_maps(guessed.unflatten(-1, (-1, 2)), side),
    )
