"""What a worker holds and does: a base, loaded once, and the files of job after job.

Shape letters: T frames, H W height and width in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..cogvideox.family import DYNAMICTRL
from ..errors import SettingError
from .jobs import Job
from .placing import Placing

if TYPE_CHECKING:
    from ..cogvideox.model import CogVideoXI2V, Posterior
    from ..cogvideox.own_values import OwnValues
    from ..poses.sequence import PoseSequence

# Prompts, pictures and actions that a worker keeps: rows near each other often share them.
KEPT = 8


@dataclass(frozen=True)
class Tools:
    """What all jobs of a batch are made with. device is torch's name of it; memory_gb limits what is taken of it."""

    base: Path
    components: Path | None = None
    refadapter: Path | None = None
    act_vae: Path | None = None
    device: str = "cpu"
    dtype: str = "bfloat16"
    memory_gb: float | None = None
    threads: int = 1

    def check(self) -> None:
        """Passes if base and adapter can be read, as far as that shows before weights are. Raises FileError."""
        from ..cogvideox.loading import plan_base
        from ..flexiact.refadapter import load_refadapter

        plan_base(self.base, self.components or self.base)
        if self.refadapter is not None:
            load_refadapter(self.refadapter)


def make_maker(tools: Tools) -> Maker:
    """A Maker in this process, which it also sets up: threads, and the limit on the device's memory."""
    from ..command_line import use_threads

    use_threads(tools.threads)
    device = torch.device(tools.device)
    if device.type == "cuda" and tools.memory_gb is not None:
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, tools.memory_gb * 2**30 / whole), device)
    return Maker(tools, device)


class Maker:
    """Makes the content of a job's file; the same job gives the same bytes on equal devices, whatever came before.

    on_step is called in each step of a video with its number and how many there are; it may raise to stop.
    """

    def __init__(self, tools: Tools, device: torch.device, on_step: Callable[[int, int], None] | None = None):
        from ..cogvideox.loading import load_base

        self.tools, self.on_step = tools, on_step
        self.limit = None if tools.memory_gb is None else int(tools.memory_gb * 2**30)
        self.placing = Placing(device, self.limit)
        self.load_base = partial(load_base, tools.base, tools.components or tools.base, getattr(torch, tools.dtype))
        self.kept: dict[Hashable, Any] = {}

    def __call__(self, job: Job) -> bytes:
        """The content of a job's file. Raises FlexiActError of any kind if it cannot be made."""
        with torch.no_grad():
            if job.system == "act_vae":
                return _as_json(self._predict(job, 0))
            return self._make_video(job)

    @property
    def base(self) -> CogVideoXI2V:
        """The base, loaded when it is first asked for."""
        return self._keep("base", self.load_base)

    def _make_video(self, job: Job) -> bytes:
        from ..cogvideox.own_values import check_asked
        from ..video_files import encode_video

        base, asked = self.base, job.settings
        own = _own_values(base)
        check_asked(base.family, {name: asked[name] for name in ("width", "height", "cfg") if name in asked})
        if job.system == "flexiact":
            check_asked(base.family, {name: asked[name] for name in ("num_frames",) if name in asked})
        run = own.complete(**{name: asked.get(name, 0) for name in ("width", "height", "num_frames", "steps", "cfg")})
        frames = self._transfer(job, run) if job.system == "flexiact" else self._animate(job, run)
        return encode_video(frames, base.family.fps)

    def _transfer(self, job: Job, run: dict[str, Any]) -> Tensor:
        """Frames in which the picture does the action."""
        from ..flexiact.bias import AUTO, PAPER_BIAS, choose_bias
        from ..flexiact.fae import load_fae
        from ..flexiact.transfer import transfer_action

        asked = {"strength": 1.0, "refadapter": 0.7 if self.tools.refadapter else 0.0, "bias_strength": 1.0,
                 "hold_until": PAPER_BIAS.hold_until, "off_below": PAPER_BIAS.off_below,
                 "weighting": AUTO} | dict(job.settings)  # fmt: skip
        bias = choose_bias(
            self.base.transformer.config, asked["bias_strength"], asked["hold_until"], asked["off_below"],
            asked["weighting"],
        )  # fmt: skip
        fae = self._keep(("action", job.action), lambda: load_fae(job.action))
        act = partial(
            transfer_action, faes=[(fae, asked["strength"])], adapters=self._adapters(asked["refadapter"]), bias=bias
        )
        image, embeds = self._read_picture(job, run), self._read_prompts(job, run)
        return self._sample(job, run, run["num_frames"], lambda base, how: act(base, image, *embeds, how))

    def _animate(self, job: Job, run: dict[str, Any]) -> Tensor:
        """Frames in which the picture performs the poses."""
        from ..dynamictrl.animate import PoseControl, animate_picture
        from ..dynamictrl.frames import most_frames, plan_frames
        from ..dynamictrl.inputs import pose_frames

        asked = {"pose_strength": 1.0, "pose_start": 0.0, "pose_end": 100.0, "image_scale": "release",
                 "frame_rule": "aligned"} | dict(job.settings)  # fmt: skip
        control = PoseControl(asked["pose_strength"], asked["pose_start"], asked["pose_end"], asked["image_scale"])
        plan = plan_frames(
            job.settings.get("num_frames") or most_frames(run["num_frames"], asked["frame_rule"]), asked["frame_rule"]
        )
        poses = self._poses(job, plan.num_frames)
        drawn = self._encode(pose_frames(plan, run["width"], run["height"], poses=poses))
        image, embeds = self._read_picture(job, run), self._read_prompts(job, run)

        def act(base, how):
            return plan.keep_latents(animate_picture(base, image, drawn, *embeds, how, control))

        return plan.keep_frames(self._sample(job, run, plan.num_frames, act))

    def _sample(self, job: Job, run: dict[str, Any], num_frames: int, act: Callable) -> Tensor:
        """Frames of what `act` gives of base and Run: latents."""
        from ..cogvideox.memory import decode_bytes, transformer_bytes
        from ..cogvideox.model import decode_latents
        from ..cogvideox.sampling import Run
        from ..video import to_frames

        base, steps = self.base, run["steps"]
        height, width = (side // base.family.vae_scale for side in (run["height"], run["width"]))
        work = transformer_bytes(base, base.family.count_latent_frames(num_frames), height, width, 2)
        report = None if self.on_step is None else (lambda index, _: self.on_step(index + 1, steps))
        with self.placing.placed(base.transformer, work) as device:
            how = Run(num_frames, device, steps, run["cfg"], job.settings.get("scheduler", "DPM"), job.seed,
                      on_step=report)  # fmt: skip
            latents = act(base, how)
        tile_px = self._tile_px()
        work = decode_bytes(base, num_frames, run["height"], run["width"], tile_px)
        with self.placing.placed(base.vae, work) as device:
            return to_frames(decode_latents(base.vae, latents, device, tile_px)).cpu()

    def _tile_px(self) -> tuple[int, int]:
        """Tiles that a card of the stated memory decodes."""
        from ..cogvideox.cards import plan_for

        return plan_for(self.limit).tile_px or self.base.family.tile_px

    def _read_picture(self, job: Job, run: dict[str, Any]) -> Posterior:
        from ..cogvideox.model import fit_picture
        from ..picture_files import read_picture

        def read():
            picture = read_picture(job.picture)
            return self._encode(fit_picture(self.base, picture, job.picture.name, run["width"], run["height"]))

        return self._keep(("picture", job.picture, run["width"], run["height"]), read)

    def _encode(self, frames: Tensor) -> Posterior:
        from ..cogvideox.memory import encode_bytes
        from ..cogvideox.model import encode_pixels
        from ..video import to_model_pixels

        with self.placing.placed(self.base.vae, encode_bytes(self.base, *frames.shape[:3])) as device:
            return encode_pixels(self.base.vae, to_model_pixels(frames), device)

    def _read_prompts(self, job: Job, run: dict[str, Any]) -> list[Tensor]:
        """Embeddings of the prompt and the negative one; at cfg 1 the negative one has no effect."""
        negative = job.prompt if run["cfg"] == 1 else job.negative_prompt
        return [self._keep(("prompt", text), partial(self._read_prompt, text)) for text in (job.prompt, negative)]

    def _read_prompt(self, text: str) -> Tensor:
        from ..cogvideox.model import encode_prompt

        base = self.base
        length = base.transformer.config.max_text_seq_length
        with self.placing.placed(base.text_encoder, 64 * length * base.text_encoder.config.d_model) as device:
            return encode_prompt(base.text_encoder, base.tokenizer, text, length, device).cpu()

    def _adapters(self, weight: float) -> list:
        from ..flexiact.refadapter import load_refadapter

        if not weight:
            return []
        path = self.tools.refadapter
        if path is None:
            raise SettingError("settings: refadapter needs the adapter's file. Name it with --refadapter.")
        return [(self._keep("refadapter", lambda: load_refadapter(path)), weight)]

    def _poses(self, job: Job, num_frames: int) -> PoseSequence:
        from ..dynamictrl.inputs import read_poses

        return read_poses(_read_json(job.pose)) if job.pose else self._predict(job, num_frames)

    def _predict(self, job: Job, num_frames: int) -> PoseSequence:
        """The poses of the row's word, after its pose or a standing figure."""
        from ..act_vae.loading import load_act_vae
        from ..act_vae.predict import HowTo, predict_poses
        from ..act_vae.source import read_source

        model = self._keep("act_vae", lambda: load_act_vae(self.tools.act_vae))
        asked = dict(job.settings) if job.system == "act_vae" else {}
        canvas = asked.pop("width", 512), asked.pop("height", 512)
        how = HowTo(**{"num_frames": num_frames, "fps": float(DYNAMICTRL.fps), "seed": job.seed} | asked)
        source = read_source(None if job.pose is None else _read_json(job.pose), canvas=canvas)
        return predict_poses(model, source, job.word, how).variants[0]

    def _keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What is kept under a key, made if it is not there; of what jobs bring, the last few."""
        if key not in self.kept:
            self.kept[key] = make()
            brought = [old for old in self.kept if isinstance(old, tuple)]
            for old in brought[: -3 * KEPT]:
                del self.kept[old]
        return self.kept[key]


def _own_values(base: CogVideoXI2V) -> OwnValues:
    from ..cogvideox.own_values import own_values

    return own_values(base.transformer.config, base.vae.config)


def _read_json(path: Path) -> Any:
    from ..model_folders import read_json

    return read_json(path)


def _as_json(poses: PoseSequence) -> bytes:
    from ..poses.keypoints import write_openpose

    return json.dumps(write_openpose(poses)).encode()
