"""An action of the camera, learned from one clip with the pack's own trainer, that acts together with poses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...modules import share_weights
from .. import shipped
from ..actor_cases import load_actors
from ..actor_render import render_actor
from ..actors import FPS, act_out, actor_caption, sample_actor
from .adapter_training import FAE_BATCH_SIZE, FAE_LEARNING_RATE

if TYPE_CHECKING:
    from ...cogvideox.model import CogVideoXI2V
    from ...flexiact.fae import FAE

REFERENCE = 4_000_000
STEPS = 150
CAMERA = "right"  # of CAMERAS: where that of the reference clip moves


def learn_camera(base: CogVideoXI2V, steps: int = STEPS, seed: int = 0) -> FAE:
    """The camera's move as motion tokens, of one clip in which a person stands still; its caption does not name it.

    It is learned on the base without its pose norms, which is a plain CogVideoX 1.5.
    """
    from ...cogvideox.encodings import encode_clips
    from ...cogvideox.model import base_signature, encode_prompt
    from ...cogvideox.sampling import make_scheduler
    from ...flexiact.fae import FAE
    from ...flexiact.fit import TOKENS, fit_fae
    from ...training import Course

    cpu, plain = torch.device("cpu"), without_pose_norms(base.transformer)
    caption = actor_caption(sample_actor(REFERENCE))
    length = base.transformer.config.max_text_seq_length
    words, empty = (encode_prompt(base.text_encoder, base.tokenizer, text, length, cpu) for text in (caption, ""))
    clips = encode_clips(base.vae, [reference_clip()], words, empty, cpu)
    course = Course(steps, FAE_LEARNING_RATE, seed, cpu, batch_size=FAE_BATCH_SIZE)
    state = fit_fae(plain, make_scheduler(base.scheduler_config, "DPM"), clips, course, num_tokens=length)
    metadata = {"base": base_signature(plain), "name": f"camera {CAMERA}", "caption": caption, "steps": str(steps)}
    return FAE(state.parameters[TOKENS], name=metadata["name"], metadata=metadata)


def build_camera(weights: Path) -> None:
    """Writes what learn_camera() learns into a weights folder, and the clip beside it, as of an action."""
    from ...flexiact.fae import FAE, save_fae
    from ...video_files import write_preview

    learned, path = learn_camera(load_actors(weights)), shipped.camera_path(weights)
    save_fae(FAE(learned.tokens.half(), name=learned.name, metadata=learned.metadata), path)
    write_preview(path.with_suffix(".mp4"), reference_clip(), FPS)


def reference_clip() -> Tensor:
    """The clip (21, 64, 64, 3) that the camera's move is learned from."""
    return render_actor(sample_actor(REFERENCE), act_out(None, camera=CAMERA))


def without_pose_norms(transformer):
    """The same transformer, over the same weights, as the plain CogVideoX 1.5 that it is without poses."""
    plain = share_weights(transformer)
    for block in plain.transformer_blocks:
        del block._modules["control_norm1"]
    plain.register_to_config(pose_norms=False)
    return plain
