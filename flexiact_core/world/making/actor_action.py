"""Actions that the people's base learns from one clip each, with the pack's own trainer: what a person does, and what
the camera does. Other skeletons perform the first, and the second acts together with poses."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...act_vae.figures import ACTIONS
from ...modules import share_weights
from .. import shipped
from ..actor_cases import load_actors
from ..actor_render import render_actor
from ..actors import FPS, FRAME_PX, Actor, act_out, actor_caption, sample_actor
from .adapter_training import FAE_LEARNING_RATE, learn_videos, settle_worker, spread
from .hogwild import faster_format

if TYPE_CHECKING:
    from ...cogvideox.model import CogVideoXI2V
    from ...flexiact.fae import FAE

log = logging.getLogger(__name__)

# A person seen from the side that dogs and birds show: what a limb does in the picture is then much alike.
REFERENCE = 4_000_013
# One whose background shows a camera's move well.
CAMERA_REFERENCE = 4_000_000
CAMERA = "right"  # of CAMERAS: where that of the reference clip moves
STEPS = 150
SETTLE_STEPS = 150
CROPS = 32
# At three times that, the camera's move holds limbs still that poses move.
CAMERA_RATE = 1e-2
# What is learned from a clip each.
LEARNED = (*ACTIONS, shipped.CAMERA_MOVE)


def learn_from_person(base: CogVideoXI2V, action: str, *, steps: int = STEPS, settle_steps: int = 0) -> FAE:
    """An action as motion tokens, of one clip of a person; its caption does not name it.

    action: one of figures.ACTIONS, or shipped.CAMERA_MOVE: the person stands still and the camera moves. It is learned
    on the base without its pose norms, which is a plain CogVideoX 1.5.
    """
    from ...clips import random_crops
    from ...cogvideox.model import base_signature
    from ...flexiact.fae import FAE

    plain = replace(base, transformer=without_pose_norms(base.transformer))
    said, clip, videos = actor_caption(reference_of(action)), reference_clip(action), []
    if action in ACTIONS:
        generator = torch.Generator().manual_seed(0)
        videos = random_crops(clip, FRAME_PX, FRAME_PX, CROPS - 1, generator, scale_range=(0.8, 1.2))
    rate = FAE_LEARNING_RATE if action in ACTIONS else CAMERA_RATE
    tokens = learn_videos(plain, [clip, *videos], said, steps=steps, rate=rate, settle_steps=settle_steps)
    name = f"camera {CAMERA}" if action == shipped.CAMERA_MOVE else action
    metadata = {
        "base": base_signature(plain.transformer), "name": name, "caption": said, "steps": str(steps + settle_steps)
    }  # fmt: skip
    return FAE(tokens, name=name, metadata=metadata)


def build_actor_actions(weights: Path, workers: int = 1) -> None:
    """Writes what is learned of every action and of the camera into a weights folder, and the clip beside each.

    Files that exist are kept.
    """
    missing = [name for name in LEARNED if not shipped.actor_fae_path(name, weights).exists()]
    spread(_learn, missing, weights, "cpu", workers)


def _learn(rank: int, missing: list[str], weights: Path, device: str, workers: int) -> None:
    from ...flexiact.fae import FAE, save_fae
    from ...video_files import write_preview

    base = load_actors(weights, faster_format(device))
    settle_worker(base, device)
    for name in missing[rank::workers]:
        started, path = time.monotonic(), shipped.actor_fae_path(name, weights)
        learned = learn_from_person(base, name, settle_steps=SETTLE_STEPS if name in ACTIONS else 0)
        save_fae(FAE(learned.tokens.half(), name=learned.name, metadata=learned.metadata), path)
        write_preview(path.with_suffix(".mp4"), reference_clip(name), FPS)
        log.info("fae %s: %.0f s", name, time.monotonic() - started)


def reference_clip(action: str) -> Tensor:
    """The clip (21, 64, 64, 3) that an action of learn_from_person() is learned from."""
    camera = action == shipped.CAMERA_MOVE
    return render_actor(reference_of(action), act_out(None if camera else action, camera=CAMERA if camera else None))


def reference_of(action: str) -> Actor:
    """The person in that clip."""
    return sample_actor(CAMERA_REFERENCE if action == shipped.CAMERA_MOVE else REFERENCE)


def without_pose_norms(transformer):
    """The same transformer, over the same weights, as the plain CogVideoX 1.5 that it is without poses."""
    plain = share_weights(transformer)
    for block in plain.transformer_blocks:
        del block._modules["control_norm1"]
    plain.register_to_config(pose_norms=False)
    return plain
