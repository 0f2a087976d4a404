"""`make bench`: ours, the released formulation and plain diffusers side by side, as one table.

By default at reduced size, on whatever is there; `--full` takes the CogVideoX-5B-I2V architecture with random bf16
weights at 49x480x720 and needs a GPU with 80 GB. Times of single steps are medians of rounds in which the sides take
turns; whole runs are timed once. On a CPU they are what the process computed, on one thread, not what the wall clock
says.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
import torch.nn.functional as F

from benchmarks import budget
from benchmarks.measure import clock, count_flops, matmul, peak_bytes, ratio, time_side_by_side
from benchmarks.released import ReleasedTraining, dense_mask, with_released_attention
from benchmarks.sizes import (
    FULL,
    GROWTH,
    LONG,
    REDUCED,
    TINY,
    Size,
    make_motion_tokens,
    make_refadapter,
    make_text_encoder,
    make_transformer,
    make_vae,
)
from flexiact_core.cogvideox.acceleration import EXACT, Acceleration, accelerate
from flexiact_core.cogvideox.model import Posterior, rotary_positions, share_weights
from flexiact_core.cogvideox.sampling import make_scheduler, sample, take_steps
from flexiact_core.flexiact.attention import (
    LayerMotion,
    MotionAttention,
    motion_kwargs,
    project_motion,
    with_motion_attention,
)
from flexiact_core.flexiact.clips import Clips
from flexiact_core.flexiact.refadapter import (
    ALPHA_PER_RANK,
    inject_refadapter,
    learned_matrices,
    matrices_by_weight,
    with_refadapters,
)
from flexiact_core.flexiact.schedule import MotionBias
from flexiact_core.flexiact.training import denoising_loss, fit_fae

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
        for name, (down, up) in matrices_by_weight(self.adapter).items():
            kept[name] = weights[name].data
            weights[name].data = kept[name] + ADAPTER_WEIGHT * ALPHA_PER_RANK * up @ down
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
            return lambda: twin(**self.inputs, attention_kwargs={"motion": motion, "motion_bias": bias})[0]

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
        return lambda: predict(**inputs, attention_kwargs={"motion": motion, "motion_bias": 1.0})

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
            make_scheduler(SCHEDULER, "DPM"),
            latents,
            latents * 0.1,
            *self.inputs["encoder_hidden_states"].chunk(2),
            steps=steps,
            cfg=6.0,
            generator=generator,
            attention_kwargs=attention_kwargs,
            acceleration=acceleration,
            on_step=on_step,
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


def bench_attention(size: Size, device, dtype, rounds: int) -> list[str]:
    """Rows of the table for one attention call, guidance off."""
    sides = attention_sides(size, size.video_tokens, size.heads, device, dtype)
    with torch.no_grad():
        seconds = time_side_by_side(sides, device, rounds)
        memory = {name: peak_bytes(work, device) for name, work in sides.items()}
    rows = []
    for name in sides:
        rows.append(
            row(f"attention, {name}", seconds[name], ratio(seconds[name], seconds["plain, same tokens"]), memory[name])
        )
    return rows


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


def bench_steps(bench: Bench, rounds: int, compiled: bool) -> tuple[list[str], dict[str, float]]:
    """Rows of the table for one guided step, and the median seconds of each side."""
    with torch.no_grad():
        sides = bench.forwards()
        flops = step_flops(bench.size)
        if compiled:
            sides["ours, bias on, compiled"] = bench.compiled_forward()
            flops["ours, bias on, compiled"] = flops["ours, bias on"]
        product, operations = matmul(bench.device, bench.dtype)
        seconds = time_side_by_side({**sides, "matmul": product}, bench.device, rounds)
        # On a CPU the count looks at every operation, and there torch gives up compiling, for good.
        counted = [name for name in sides if "compiled" not in name or bench.device.type == "cuda"]
        memory = {name: peak_bytes(sides[name], bench.device) for name in counted}
    peak = operations / min(seconds.pop("matmul"))
    rows = []
    for name in sides:
        use = f"{flops[name] / 1e12:.3g} T | {flops[name] / statistics.median(seconds[name]) / peak:.0%}"
        rows.append(
            row(f"step, {name}", seconds[name], ratio(seconds[name], seconds["plain diffusers"]), memory.get(name), use)
        )
    pipeline = bench.pipeline_steps(4 if bench.device.type == "cpu" else 6)
    own_moments: list[float] = []
    with bench.merged():
        bench.sampling(steps=len(pipeline) + 1, on_step=lambda *_: bench._stamp(own_moments))
    own = [late - early for early, late in zip(own_moments, own_moments[1:])]
    rows.append(row("loop step, diffusers' pipeline", pipeline, 1.0, None))
    rows.append(row("loop step, ours", own, statistics.median(own) / statistics.median(pipeline), None))
    rows.append(f"| measured matmul peak | {peak / 1e12:.3g} T/s | | | | |")
    return rows, {name: statistics.median(times) for name, times in seconds.items()}


def step_flops(size: Size) -> dict[str, int]:
    """Operations of one guided step of each side, counted on the meta device."""
    bench = Bench(size, META, torch.bfloat16)
    with torch.no_grad():
        return {name: count_flops(work) for name, work in bench.forwards().items()}


def sampling_rows(step: dict[str, float], steps: int = 50) -> list[str]:
    """Rows for a whole run, from the measured steps: the bias is on in the steps above timestep 700."""
    timesteps = take_steps(make_scheduler(SCHEDULER, "DPM"), steps)
    on = sum(MotionBias().at(timestep) != 0 for timestep in timesteps)

    def run(side: str) -> float:
        return on * step[f"{side}, bias on"] + (steps - on) * step[f"{side}, bias off"]

    ours, released, plain = run("ours"), run("released"), steps * step["plain diffusers"]
    masked = steps * step["released, bias on"]
    return [
        f"| {steps} steps from the above, plain diffusers | {plain:.4g} s | {plain / ours:.2f}x ours | | | |",
        f"| {steps} steps, ours, exact ({on} with the bias on) | {ours:.4g} s | 1 | | | |",
        f"| {steps} steps, released, mask in {on} steps | {released:.4g} s | {released / ours:.2f}x ours | | | |",
        f"| {steps} steps, released, mask in every step | {masked:.4g} s | {masked / ours:.2f}x ours | | | |",
    ]


def bench_runs(bench: Bench, steps: int, compiled: bool) -> list[str]:
    """Rows for whole runs: the released formulation, ours, and ours with what saves time, and how far latents move."""
    choices = {"ours, exact": EXACT, **{f"ours, taylor {n}": Acceleration("taylor", interval=n) for n in (2, 3, 4, 5)}}
    if compiled:
        choices["ours, compiled"] = Acceleration(compiled=True)
        for interval in (3, 4, 5):
            choices[f"ours, compiled, taylor {interval}"] = Acceleration("taylor", interval=interval, compiled=True)
    released, _ = run_seconds(bench, steps, released=True)
    rows = [f"| {steps}-step run, released | {released:.4g} s | 1.00x faster | | | |"]
    reference = None
    with bench.merged():
        for name, acceleration in choices.items():
            if acceleration.compiled:
                # Both forms of the attention are met, so nothing is compiled in the run that is timed.
                bench.sampling(acceleration, steps=6)
            seconds, latents = run_seconds(bench, steps, acceleration=acceleration)
            reference = latents if reference is None else reference
            noise = (latents - reference).square().mean().item()
            distance = f"{10 * torch.log10(reference.square().mean() / noise).item():.1f} dB" if noise else "identical"
            gain = f"{released / seconds:.2f}x faster"
            rows.append(f"| {steps}-step run, {name} | {seconds:.4g} s | {gain} | | | latents: {distance} |")
    return rows


def run_seconds(bench: Bench, steps: int, **options) -> tuple[float, torch.Tensor]:
    """Seconds of one whole run, and its latents."""
    started = clock(bench.device)
    latents = bench.sampling(steps=steps, **options)
    return clock(bench.device) - started, latents


def bench_training(size: Size, device, dtype, rounds: int) -> list[str]:
    """Rows for one step of FAE training, and for what the released recipe adds to it."""
    bench = Bench(size, device, dtype)
    vae, text_encoder = make_vae(size, device, dtype), make_text_encoder(size, device, dtype)
    vae.enable_slicing()
    pixels = torch.rand(1, 3, size.frames, *size.pixels) * 2 - 1
    token_ids = torch.zeros(1, size.text_tokens, dtype=torch.long, device=device)
    scheduler = make_scheduler(SCHEDULER, "DPM")
    tokens = make_motion_tokens(size, device, dtype)
    released = ReleasedTraining(bench.transformer, vae, text_encoder, scheduler, bench.adapter, tokens, device)
    latents = torch.randn(2, size.latent_frames, 16, size.patches[0] * 2, size.patches[1] * 2)
    posterior, first = Posterior(latents, latents * 0.1), Posterior(latents[:, :1], latents[:, :1] * 0.1)
    embeds = bench.inputs["encoder_hidden_states"][:1].cpu()
    clips = Clips(posterior, first, embeds, embeds, 0.7)

    def ours(checkpointing: bool) -> float:
        moments: list[float] = []
        fit_fae(
            bench.transformer, scheduler, clips, steps=2, learning_rate=1e-3, seed=0, device=device,
            num_tokens=size.text_tokens, gradient_checkpointing=checkpointing,
            on_step=lambda *_: moments.append(clock(device)),
        )  # fmt: skip
        return moments[1] - moments[0]

    def theirs() -> float:
        started = clock(device)
        released.step(pixels, token_ids)
        return clock(device) - started

    sides = {"ours": lambda: ours(True), "ours, without checkpointing": lambda: ours(False), "released": theirs}
    memory = {name: peak_bytes(work, device) for name, work in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            seconds[name].append(work())
    return [
        row(f"FAE training step, {name}", seconds[name], ratio(seconds[name], seconds["ours"]), memory[name])
        for name in sides
    ]


def row(name: str, seconds: list[float], times: float, memory: int | None, use: str = " | ") -> str:
    held = "" if memory is None else f"{memory / 2**20:,.0f} MiB"
    return f"| {name} | {statistics.median(seconds) * 1e3:,.4g} ms | {times:.3f}x | {held} | {use} |"


def growth(size: Size, device, dtype, patches: list[tuple[int, int]], folder: Path) -> list[str]:
    """Rows of one guided step against the number of video tokens, and the pictures of them."""
    from PIL import Image

    from flexiact_core.plots import draw_lines

    names = ("plain diffusers", "ours, bias on", "released, bias on")
    tokens: list[int] = []
    times: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, list[float]] = {name: [] for name in names}
    rows = []
    for grid in patches:
        bench = Bench(replace(size, patches=grid), device, dtype)
        tokens.append(bench.size.video_tokens)
        with torch.no_grad():
            forwards = bench.forwards()
            sides = {name: forwards[name] for name in names}
            for name, work in sides.items():
                memory[name].append(peak_bytes(work, device) / 2**20)
            for name, seconds in time_side_by_side(sides, device, rounds=2).items():
                times[name].append(min(seconds))
        cells = [f"{times[name][-1]:.3g} s, {memory[name][-1]:,.0f} MiB" for name in names]
        rows.append(f"| {tokens[-1]:,} | " + " | ".join(cells) + " |")
        del bench, forwards, sides, work
    for title, values, file in (
        ("seconds of one guided step", times, "growth_time.png"),
        ("MiB held by one guided step beside the weights", memory, "growth_memory.png"),
    ):
        lines = [(name, tokens, values[name]) for name in names]
        picture = draw_lines(lines, title=title, x_label="video tokens")
        pixels = (picture[0] * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / file)
    head = ["| video tokens | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    return head + rows


def flops_table() -> list[str]:
    """Operations at full size, counted: what no machine can save."""
    flops = step_flops(FULL)
    plain = flops["plain diffusers"]
    lines = ["| one guided step at full size | TFLOP | to plain |", "|---|---|---|"]
    lines += [f"| {name} | {value / 1e12:,.1f} | {value / plain:.3f}x |" for name, value in flops.items()]
    flops = {name: count_flops(work) for name, work in training_sides(FULL).items()}
    lines += ["", "| one training step at full size, of an FAE if not said | TFLOP | to ours |", "|---|---|---|"]
    return lines + [f"| {name} | {value / 1e12:,.1f} | {value / flops['ours']:.3f}x |" for name, value in flops.items()]


def training_sides(size: Size) -> dict:
    """The arithmetic of one training step of an FAE by each side, and of a RefAdapter: forward, loss and backward.

    On the meta device.
    """
    bench = Bench(size, META, torch.bfloat16)
    vae, text_encoder = make_vae(size, META, torch.bfloat16), make_text_encoder(size, META, torch.bfloat16)
    scheduler = make_scheduler(SCHEDULER, "DPM")
    tokens = torch.nn.Parameter(make_motion_tokens(size, META, torch.float32))
    pixels = torch.empty(1, 3, size.frames, *size.pixels, device=META, dtype=torch.bfloat16)
    token_ids = torch.zeros(1, size.text_tokens, dtype=torch.long, device=META)
    video = torch.empty(1, size.latent_frames, 16, size.patches[0] * 2, size.patches[1] * 2, device=META)
    embeds = bench.inputs["encoder_hidden_states"][:1]
    number = torch.zeros(1, dtype=torch.long, device=META)

    def learn(learner, motion=None):
        denoising_loss(
            learner, scheduler, video, video[:, :1], torch.empty_like(video), number, embeds, motion=motion,
            debias_frames=number,
        ).backward()  # fmt: skip

    def ours(checkpointing: bool):
        learner = with_motion_attention(bench.transformer)
        if checkpointing:
            learner.enable_gradient_checkpointing()
        return lambda: learn(learner, project_motion(learner, [(tokens.bfloat16(), 1.0)]))

    def refadapter(checkpointing: bool):
        learner = share_weights(bench.transformer)
        inject_refadapter(learner, bench.adapter, "learning")
        for matrix in learned_matrices(learner, "learning").values():
            matrix.data = matrix.data.float()
            matrix.requires_grad_()
        if checkpointing:
            learner.enable_gradient_checkpointing()
        return lambda: learn(learner)

    def released():
        learner = with_released_attention(bench.transformer, tokens, bench.adapter, 0.0)
        learner.enable_gradient_checkpointing()
        with torch.no_grad():
            vae.encode(pixels)
            vae.encode(pixels[:, :, :1])
            text_encoder(token_ids)
        learn(learner)

    return {
        "ours": ours(True),
        "ours, without checkpointing": ours(False),
        "released": released,
        "RefAdapter": refadapter(True),
        "RefAdapter, without checkpointing": refadapter(False),
    }


def describe(device: torch.device, dtype: torch.dtype, size: Size) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return (
        f"{name}; {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}, diffusers "
        f"{diffusers.__version__}; {size.layers} layers, width {size.width}, {size.text_tokens} text and motion tokens "
        f"each, {size.video_tokens:,} video tokens, guidance on, {str(dtype)[6:]}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="CogVideoX-5B-I2V's sizes in bf16, on a GPU")
    parser.add_argument("--tiny", action="store_true", help="a size that only shows that everything runs")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is timed")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--plots", type=Path, help="folder for the pictures of growth with the number of tokens")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.full and device.type == "cpu":
        parser.error("--full needs a GPU. Without --full the sizes fit a CPU.")
    torch.set_num_threads(arguments.threads)
    # About dtypes of layers that this model does not have.
    diffusers.logging.set_verbosity_error()
    size = FULL if arguments.full else TINY if arguments.tiny else REDUCED
    default = "bfloat16" if device.type == "cuda" else "float32"
    dtype = getattr(torch, arguments.dtype or default)
    rounds = arguments.rounds

    say(describe(device, dtype, size), "")
    say("| what | time | ratio | memory held | FLOPs | of matmul peak |", "|---|---|---|---|---|---|")
    say(*bench_attention(size, device, dtype, 3 * rounds))
    bench = Bench(size, device, dtype)
    compiled = not arguments.tiny
    rows, step = bench_steps(bench, rounds, compiled)
    say(*rows)
    say(*sampling_rows(step))
    say(*bench_runs(bench, 6 if arguments.tiny else 50, compiled))
    del bench
    say(*bench_training(size, device, dtype, 1 if device.type == "cpu" else rounds))
    if arguments.plots:
        arguments.plots.mkdir(parents=True, exist_ok=True)
        grown, patches = (TINY, [(4, 4), (4, 8)]) if arguments.tiny else (FULL if arguments.full else LONG, GROWTH)
        say("", *growth(grown, device, dtype, patches, arguments.plots))
    if not arguments.tiny:
        say("", *flops_table(), "", *budget.table())


def say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
