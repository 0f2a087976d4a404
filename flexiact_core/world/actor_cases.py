"""The people's world used as a user would: a picture, a driving pose, the base, a video. What is measured and shown.

Shape letters: N cases, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..act_vae.figures import ACTIONS
from ..cogvideox.model import CogVideoXI2V, Posterior, decode_latents, encode_pixels, encode_prompt
from ..cogvideox.sampling import Run
from ..dynamictrl.animate import PoseControl, animate_picture
from ..dynamictrl.frames import plan_frames
from ..poses.draw import draw_poses
from ..poses.sequence import PoseSequence
from ..video import to_frames, to_model_pixels
from . import shipped
from .actor_render import POSE_LOOK, draw_actor_poses, render_actor
from .actors import (
    FIRST_HELD_OUT,
    HELD_OUT_CLOTHES,
    NUM_FRAMES,
    Actor,
    Performance,
    act_out,
    actor_caption,
    poses_of,
    sample_actor,
)
from .bodies import PERSON

if TYPE_CHECKING:
    from ..flexiact.fae import FAE

CPU = torch.device("cpu")
STEPS = 25
# Poses of a whole course, of which a clip shows the first: the pace of the world.
COURSE_FRAMES = 37


@dataclass(frozen=True)
class ActorCase:
    """A person who was not in any training, the action that the driving pose shows, and the run's seed."""

    actor: Actor
    action: str
    seed: int

    @property
    def performance(self) -> Performance:
        """What the driving pose shows."""
        return act_out(self.action)


def make_actor_cases(people: int, kind: str = PERSON) -> list[ActorCase]:
    """Every action by as many of a kind, each another one in clothes that no training showed together."""
    return [example_case(number, action, kind) for number, action in enumerate(list(ACTIONS) * people)]


def example_case(person: int, action: str, kind: str = PERSON) -> ActorCase:
    """One of endlessly many people, or others of bodies.KINDS, who were in no training, numbered from 0, doing an
    action."""
    return ActorCase(sample_actor(FIRST_HELD_OUT + person, HELD_OUT_CLOTHES, kind), action, person)


def load_actors(weights: Path = shipped.WEIGHTS, dtype: torch.dtype = torch.float32) -> CogVideoXI2V:
    """The base of the people's world, through the pack's own loader."""
    from ..cogvideox.loading import load_base

    folder = shipped.actors_folder(weights)
    return load_base(folder, folder, dtype)


def picture_of(actor: Actor) -> Tensor:
    """The picture that a video starts from, (1, 64, 64, 3) in 0..1: the person at rest."""
    return render_actor(actor, act_out(None, frames=1))


@torch.no_grad()
def perform(
    base: CogVideoXI2V, cases: Sequence[ActorCase], drawn: Sequence[Tensor], *, words: Sequence[str] | None = None,
    strength: float = 1.0, faes: Sequence[tuple[FAE, float]] = (), steps: int = STEPS,
) -> Tensor:  # fmt: skip
    """Videos (N, T, 64, 64, 3) in 0..1 in which the people of cases follow drawn poses (T, 64, 64, 3) each.

    words are the captions; left out, those that name no action. strength is the poses', faes are actions with their
    strengths, as the node takes them.
    """
    from ..flexiact.transfer import condition_on_actions

    plan = plan_frames(NUM_FRAMES)
    image = _encode(base, [picture_of(case.actor) for case in cases])
    poses = _encode(base, drawn)
    words = words or [actor_caption(case.actor) for case in cases]
    length = base.transformer.config.max_text_seq_length
    embeds = torch.cat([encode_prompt(base.text_encoder, base.tokenizer, text, length, CPU) for text in words])
    seeds = tuple(case.seed for case in cases)
    run = Run(num_frames=NUM_FRAMES, device=CPU, steps=steps, cfg=1.0, seed=seeds)
    conditioned = condition_on_actions(base, CPU, faes=faes) if faes else None
    latents = animate_picture(base, image, poses, embeds, embeds, run, PoseControl(strength), conditioned)
    decoded = [to_frames(decode_latents(base.vae, plan.keep_latents(one[None]), CPU)) for one in latents]
    return torch.stack([plan.keep_frames(frames) for frames in decoded])


def _encode(base: CogVideoXI2V, videos: Sequence[Tensor]) -> Posterior:
    posteriors = [encode_pixels(base.vae, to_model_pixels(video), CPU) for video in videos]
    return Posterior(torch.cat([one.mean for one in posteriors]), torch.cat([one.std for one in posteriors]))


@torch.no_grad()
def through_vae(base: CogVideoXI2V, videos: Sequence[Tensor]) -> Tensor:
    """Videos (N, T, 64, 64, 3) encoded and decoded: as good as a video of this base can be."""
    scale = base.vae.config.scaling_factor
    posteriors = [encode_pixels(base.vae, to_model_pixels(video), CPU) for video in videos]
    return torch.stack([to_frames(decode_latents(base.vae, one.mean * scale, CPU))[-NUM_FRAMES:] for one in posteriors])


def driving(case: ActorCase) -> Tensor:
    """The case's own driving poses, drawn (T, 64, 64, 3)."""
    return draw_actor_poses(case.actor, case.performance)


def predicted_poses(case: ActorCase, model, action: str | None = None) -> PoseSequence:
    """What ACT-VAE makes of the word for an action, the case's own if none is given, from the case's person at rest."""
    from ..act_vae.predict import HowTo, predict_poses
    from ..act_vae.source import source_pose

    source = source_pose(poses_of(case.actor, act_out(None, frames=1)))
    made = predict_poses(model, source, action or case.action, HowTo(num_frames=COURSE_FRAMES, seed=case.seed))
    return made.variants[0]


def draw_predicted(poses: PoseSequence) -> Tensor:
    """The first of predicted poses, as many as a clip has, drawn as this base takes them."""
    return draw_poses(poses, look=POSE_LOOK)[:NUM_FRAMES]
