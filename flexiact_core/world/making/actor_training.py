"""How the transformer and the text encoder of the people's world are trained, on clips encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...cogvideox.family import DYNAMICTRL
from ...cogvideox.model import pad_image_latents
from ...cogvideox.predict import make_predict
from ...cogvideox.processor import VideoAttention
from ...dynamictrl.pose_norm import PoseStream, pose_tokens, time_embedding
from ..actor_render import draw_actor_poses, render_actor
from ..actors import NUM_FRAMES, Actor, Performance, actor_caption, actor_vocabulary, sample_actor, sample_performance
from .base_training import ClipTask, encode_data, encode_videos, moving_weight, tokenize
from .models import make_posed_transformer, make_text_encoder

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX
    from transformers import T5Tokenizer

# Shares of the samples that are not told something: then the others have to say it.
NO_POSE = 0.4
NO_ACTION_WORD = 0.3
NO_CAMERA_WORD = 0.3
NO_CAPTION = 0.08
NO_PICTURE = 0.03
KIND_SHARES = {"person": 0.5, "dog": 0.25, "bird": 0.25}
# What each of a clip's four captions names beside the person: neither, the action, the camera, both.
SAID = ((False, False), (True, False), (False, True), (True, True))


def actor_clip(index: int) -> tuple[Actor, Performance, str | None, str | None]:
    """One of endlessly many training clips: who, what they do, and the names of action and camera if they have one."""
    rng = np.random.default_rng([index, 79])
    seed, performance = int(rng.integers(2**31)), sample_performance(rng)
    kind = rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values()))
    return sample_actor(seed, kind=str(kind)), *performance


def encode_actors(
    vae: AutoencoderKLCogVideoX, folder: Path, *, num_clips: int, device: str = "cpu", workers: int = 1,
    part_size: int = 128,
) -> None:  # fmt: skip
    """Encodes training clips of people into a folder, as encode_data() does."""
    encode_data(
        vae, folder, _encode, actor_vocabulary(), num_clips=num_clips, device=device, workers=workers,
        part_size=part_size,
    )  # fmt: skip


def _encode(vae: AutoencoderKLCogVideoX, tokenizer: T5Tokenizer, index: int) -> dict[str, Tensor]:
    """Posteriors in float16, of the clip and of its drawn poses (1, 6, 16, 8, 8), and of its first frame
    (1, 1, 16, 8, 8), and its four captions as tokens (1, 4, 16)."""
    actor, performance, action, camera = actor_clip(index)
    frames = render_actor(actor, performance)
    encoded = encode_videos(vae, video=frames, image=frames[:1], pose=draw_actor_poses(actor, performance))
    words = [actor_caption(actor, action if act else None, camera if cam else None) for act, cam in SAID]
    return encoded | {"said": tokenize(tokenizer, words)[None]}


class ActorTask(ClipTask):
    """v-prediction on encoded clips with their drawn poses; `hogwild.Task`.

    Poses that are left out add nothing to any layer, as in a run without them.
    """

    words = actor_vocabulary()
    # Limbs are thin: they are drawn when little noise is left.
    timestep_power = 0.8

    def make_module(self) -> torch.nn.Module:
        torch.manual_seed(0)
        transformer = make_posed_transformer(NUM_FRAMES)
        for layer, block in enumerate(transformer.transformer_blocks):
            block.attn1.set_processor(VideoAttention(layer))
        return torch.nn.ModuleDict({"transformer": transformer, "text_encoder": make_text_encoder(self.words)})

    def loss(self, module: torch.nn.Module, generator: torch.Generator, progress: float) -> Tensor:
        rows, transformer = self._rows(generator), module["transformer"]
        video, image, pose = (self._draw(name, rows, generator) for name in ("video", "image", "pose"))
        image = image * self._kept(NO_PICTURE, generator)
        timesteps, noisy, true_velocity = self._noise(video, generator)
        dtype = next(module.parameters()).dtype
        with sdpa_kernel(SDPBackend.MATH):
            text = module["text_encoder"](self._captions(rows, generator))[0].to(dtype)
            temb = time_embedding(transformer, timesteps, DYNAMICTRL.ofs, dtype)
            stream = PoseStream(transformer.transformer_blocks, pose_tokens(transformer, pose.to(dtype)), temb)
            poses = _Kept(stream, self._kept(NO_POSE, generator)[:, 0, 0].to(dtype))
            predict = make_predict(transformer, video.shape, video.device)
            condition = pad_image_latents(image, video.shape[1])
            velocity = predict(noisy, condition, text, timesteps, {"pose": poses})
        return ((velocity - true_velocity).square() * moving_weight(video)).mean()

    def _captions(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        no_action, no_camera, none = torch.rand(3, self.batch_size, generator=generator)
        which = (no_action >= NO_ACTION_WORD).long() + 2 * (no_camera >= NO_CAMERA_WORD).long()
        tokens = torch.where((none < NO_CAPTION)[:, None], self.empty, self.data["said"][rows, which])
        return tokens.to(self.device)


class _Kept:
    """A pose stream that adds nothing to some of the samples."""

    def __init__(self, stream: PoseStream, kept: Tensor):
        self.stream, self.kept = stream, kept

    def at(self, layer: int) -> Tensor:
        return self.stream.at(layer) * self.kept
