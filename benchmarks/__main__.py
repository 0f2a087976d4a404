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
from dataclasses import replace
from pathlib import Path

import diffusers
import torch

from benchmarks import budget
from benchmarks.measure import clock, count_flops, matmul, peak_bytes, ratio, time_side_by_side
from benchmarks.released import ReleasedTraining
from benchmarks.sides import SCHEDULER, Bench, attention_sides, step_flops, training_sides
from benchmarks.sizes import (
    FULL,
    GROWTH,
    LONG,
    REDUCED,
    TINY,
    Size,
    make_motion_tokens,
    make_text_encoder,
    make_vae,
)
from flexiact_core.cogvideox.acceleration import EXACT, Acceleration
from flexiact_core.cogvideox.encodings import Clips
from flexiact_core.cogvideox.model import Posterior
from flexiact_core.cogvideox.sampling import make_scheduler, take_steps
from flexiact_core.flexiact.bias import MotionBias
from flexiact_core.flexiact.fit import fit_fae
from flexiact_core.training import Course


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
        course = Course(
            2, 1e-3, 0, device, gradient_checkpointing=checkpointing, on_step=lambda *_: moments.append(clock(device))
        )
        fit_fae(bench.transformer, scheduler, clips, course, num_tokens=size.text_tokens)
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
