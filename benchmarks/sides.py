"""The sides of the bench: ours, the released formulation, plain diffusers; each piece of work as a function."""

from __future__ import annotations

from contextlib import contextmanager

import torch
import torch.nn.functional as F

from benchmarks.measure import clock, count_flops
from benchmarks.released import dense_mask, with_released_attention
from benchmarks.sizes import (
    TINY,
    Size,
    make_motion_tokens,
    make_refadapter,
    make_text_encoder,
    make_transformer,
    make_vae,
)
from flexiact_core.cogvideox.acceleration import EXACT, Acceleration, accelerate
from flexiact_core.cogvideox.loss import Batch, denoising_loss
from flexiact_core.cogvideox.model import rotary_positions
from flexiact_core.cogvideox.sampling import Run, make_scheduler, sample
from flexiact_core.flexiact.bias import MotionBias
from flexiact_core.flexiact.fit import start_learning
from flexiact_core.flexiact.motion import LayerMotion
from flexiact_core.flexiact.processor import MotionAttention, motion_kwargs, project_motion, with_motion_attention
from flexiact_core.flexiact.refadapter import to_lora, with_refadapters

SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
}
ADAPTER_WEIGHT = 0.7
META = torch.device("meta")


class Bench:
    """The parts that all sides share, and the sides: each a function that runs one piece of work."""

    def __init__(self, size: Size, device: torch.device, dtype: torch.dtype):
        self.size, self.device, self.dtype = size, device, dtype
        torch.manual_seed(0)
        self.transformer = make_transformer(size, device, dtype)
        self.tokens = make_motion_tokens(size, device, dtype)
        self.adapter = make_refadapter(size, device, dtype)
        self.inputs = self._inputs(batch=2)

    def _inputs(self, batch: int) -> dict:
        size, like = self.size, dict(device=self.device, dtype=self.dtype)
        height, width = size.patches[0] * 2, size.patches[1] * 2
        tables = rotary_positions(self.transformer.config, size.latent_frames, height, width)
        return {
            "hidden_states": torch.randn(batch, size.latent_frames, 32, height, width, **like),
            "encoder_hidden_states": torch.randn(batch, size.text_tokens, size.text_width, **like),
            "timestep": torch.full((batch,), 800, device=self.device),
            "image_rotary_emb": tuple(table.to(self.device) for table in tables),
            "return_dict": False,
        }

    @contextmanager
    def merged(self):
        """The adapter inside the base's weights, which come back as they were."""
        weights = dict(self.transformer.named_parameters())
        kept = {}
        for name, own in to_lora(self.adapter).matrices.items():
            kept[name] = weights[name].data
            weights[name].data = kept[name] + ADAPTER_WEIGHT * own.scale * own.up @ own.down
        try:
            yield self.transformer
        finally:
            for name, value in kept.items():
                weights[name].data = value

    def forwards(self) -> dict:
        """One guided forward of the transformer for each side, as functions of no arguments. No gradients."""
        plain, size = self.transformer, self.size
        separate = with_refadapters(plain, [(self.adapter, ADAPTER_WEIGHT)], self.device, self.dtype)
        released = with_released_attention(plain, self.tokens, self.adapter, ADAPTER_WEIGHT)
        sides = {"plain diffusers": lambda: plain(**self.inputs)[0]}

        def ours(transformer, bias):
            twin = with_motion_attention(transformer)
            motion = project_motion(twin, [(self.tokens, 1.0)])
            return lambda: twin(**self.inputs, attention_kwargs={"motion": motion, "bias": bias})[0]

        # Merged or not, the weights hold random numbers: what counts is that no matrix product is added.
        sides["ours, bias on"] = ours(plain, 1.0)
        sides["ours, bias off"] = ours(plain, 0.0)
        sides["ours, bias on, adapter unmerged"] = ours(separate, 1.0)
        sides["released, bias on"] = lambda: released(**self.inputs, attention_kwargs={"bias": 1.0})[0]
        sides["released, bias off"] = lambda: released(**self.inputs)[0]
        assert size.text_tokens == self.tokens.shape[1]
        return sides

    def compiled_forward(self):
        """The forward "ours, bias on" with its blocks compiled."""
        twin = with_motion_attention(self.transformer)
        motion = project_motion(twin, [(self.tokens, 1.0)])
        predict = accelerate(twin, Acceleration(compiled=True), self.inputs["hidden_states"])
        inputs = {name: value for name, value in self.inputs.items() if name != "return_dict"}
        return lambda: predict(**inputs, attention_kwargs={"motion": motion, "bias": 1.0})

    def sampling(self, acceleration: Acceleration = EXACT, steps: int = 50, on_step=None, released: bool = False):
        """The latents of one whole denoising run: ours, adapter merged by the caller; or the released formulation."""
        bias = MotionBias()
        if released:
            twin = with_released_attention(self.transformer, self.tokens, self.adapter, ADAPTER_WEIGHT)

            def attention_kwargs(timestep):
                return {"bias": bias.at(timestep) or None}
        else:
            twin = with_motion_attention(self.transformer)
            attention_kwargs = motion_kwargs(project_motion(twin, [(self.tokens, 1.0)]), bias)
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(self.inputs["hidden_states"][:1, :, :16].shape, generator=generator).to(self.device)
        return sample(
            twin,
            SCHEDULER,
            latents,
            latents * 0.1,
            *self.inputs["encoder_hidden_states"].chunk(2),
            Run(self.size.frames, self.device, steps, acceleration=acceleration, on_step=on_step),
            generators=[generator],
            attention_kwargs=attention_kwargs,
        )

    def pipeline_steps(self, steps: int) -> list[float]:
        """Seconds of the steps but the first of diffusers' own pipeline, with this transformer."""
        from diffusers import CogVideoXDPMScheduler, CogVideoXImageToVideoPipeline
        from PIL import Image

        height, width = self.size.pixels
        pipeline = CogVideoXImageToVideoPipeline(
            tokenizer=None,
            text_encoder=None,
            # Its encoder runs once before the first step and is not timed, so a small one serves.
            vae=make_vae(TINY, self.device, self.dtype),
            transformer=self.transformer,
            scheduler=CogVideoXDPMScheduler.from_config(SCHEDULER, timestep_spacing="trailing"),
        )
        pipeline.set_progress_bar_config(disable=True)
        moments = []
        negative, positive = self.inputs["encoder_hidden_states"].chunk(2)
        pipeline(
            image=Image.new("RGB", (width, height)),
            prompt_embeds=positive,
            negative_prompt_embeds=negative,
            num_inference_steps=steps,
            guidance_scale=6.0,
            height=height,
            width=width,
            num_frames=self.size.frames,
            output_type="latent",
            callback_on_step_end=lambda *_: self._stamp(moments),
        )
        return [late - early for early, late in zip(moments, moments[1:])]

    def _stamp(self, moments: list[float]) -> dict:
        moments.append(clock(self.device))
        return {}


def attention_sides(size: Size, video_tokens: int, heads: int, device, dtype) -> dict:
    """One attention call for each side, on text, motion and video tokens."""

    def draw(tokens: int):
        return torch.randn(1, tokens, heads, size.head_dim, device=device, dtype=dtype).transpose(1, 2)

    text = motion = size.text_tokens

    def draw_layer(tokens: int):
        # As the layer hands them over: norm and rotary have laid out query and key anew, values are as projected.
        return [draw(tokens).contiguous(), draw(tokens).contiguous(), draw(tokens)]

    own, full = draw_layer(text + video_tokens), draw_layer(text + motion + video_tokens)
    layer = LayerMotion(*draw_layer(motion)[1:], None)
    processor = MotionAttention(0)

    def ours(bias):
        return lambda: processor._attend(*own, text, [layer], bias)

    def plain():
        key, value = torch.cat([own[1], layer.key], dim=2), torch.cat([own[2], layer.value], dim=2)
        return F.scaled_dot_product_attention(own[0], key, value)

    def released():
        return F.scaled_dot_product_attention(*full, attn_mask=dense_mask(text, motion, video_tokens, 1.0, full[0]))

    return {
        "plain, same tokens": plain,
        "ours, bias on": ours(1.0),
        "ours, bias off": ours(0.0),
        "released, dense mask": released,
    }


def step_flops(size: Size) -> dict[str, int]:
    """Operations of one guided step of each side, counted on the meta device."""
    bench = Bench(size, META, torch.bfloat16)
    with torch.no_grad():
        return {name: count_flops(work) for name, work in bench.forwards().items()}


class TrainingSides:
    """The arithmetic of one training step by each side: forward, loss and backward. On the meta device."""

    def __init__(self, size: Size):
        self.bench = Bench(size, META, torch.bfloat16)
        self.vae = make_vae(size, META, torch.bfloat16)
        self.text_encoder = make_text_encoder(size, META, torch.bfloat16)
        self.scheduler = make_scheduler(SCHEDULER, "DPM")
        self.tokens = torch.nn.Parameter(make_motion_tokens(size, META, torch.float32))
        self.pixels = torch.empty(1, 3, size.frames, *size.pixels, device=META, dtype=torch.bfloat16)
        self.token_ids = torch.zeros(1, size.text_tokens, dtype=torch.long, device=META)
        video = torch.empty(1, size.latent_frames, 16, size.patches[0] * 2, size.patches[1] * 2, device=META)
        embeds = self.bench.inputs["encoder_hidden_states"][:1]
        number = torch.zeros(1, dtype=torch.long, device=META)
        self.batch = Batch(video, video[:, :1], torch.empty_like(video), number, embeds, debias_frames=number)

    def learn(self, learner, checkpointing: bool, motion=None) -> None:
        """One step of a learner."""
        if checkpointing:
            learner.enable_gradient_checkpointing()
        denoising_loss(learner, self.scheduler, self.batch, motion and {"motion": motion}).backward()

    def ours(self, checkpointing: bool):
        """A step on the motion tokens."""
        learner = with_motion_attention(self.bench.transformer)
        return lambda: self.learn(learner, checkpointing, project_motion(learner, [(self.tokens.bfloat16(), 1.0)]))

    def refadapter(self, checkpointing: bool):
        """A step on a RefAdapter's matrices."""
        learner, _ = start_learning(self.bench.transformer, self.bench.adapter, META)
        return lambda: self.learn(learner, checkpointing)

    def released(self) -> None:
        """A step as released: encoders, adapter and motion rows in every step."""
        learner = with_released_attention(self.bench.transformer, self.tokens, self.bench.adapter, 0.0)
        with torch.no_grad():
            self.vae.encode(self.pixels)
            self.vae.encode(self.pixels[:, :, :1])
            self.text_encoder(self.token_ids)
        self.learn(learner, checkpointing=True)


def training_sides(size: Size) -> dict:
    """One training step of an FAE by each side, and of a RefAdapter, as functions of no arguments."""
    sides = TrainingSides(size)
    return {
        "ours": sides.ours(True),
        "ours, without checkpointing": sides.ours(False),
        "released": sides.released,
        "RefAdapter": sides.refadapter(True),
        "RefAdapter, without checkpointing": sides.refadapter(False),
    }
