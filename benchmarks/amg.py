"""AMG in figures: `python -m benchmarks.amg`. A step in the released form and in ours, encoding, decoding, loading.

At reduced size on a CPU, as elsewhere; operations and memory of the released size are counted on torch's meta device,
without weights.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.measure import count_flops, peak_bytes, ratio, time_side_by_side
from flexiact_core.amg.memory import decode_bytes, encode_bytes, unet_bytes
from flexiact_core.amg.model import Adapter, apply_adapter, empty_unet, inject_lora, lora_shapes
from flexiact_core.amg.pictures import CHUNK
from flexiact_core.amg.sampling import predict_noise

CPU, META = torch.device("cpu"), torch.device("meta")
# Frames and latents per side.
REDUCED, RELEASED = (16, 16), (16, 32)
SMALL_UNET = {
    "in_channels": 8,
    "block_out_channels": (64, 128, 256),
    "down_block_types": ("CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"),
    "cross_attention_dim": 256,
    "attention_head_dim": 32,
}
SMALL_VAE = {"block_out_channels": (32, 64, 128, 128), "layers_per_block": 2}


def inputs(size: tuple[int, int], width: int, device: torch.device, dtype=torch.float32) -> tuple[torch.Tensor, ...]:
    """Noisy and avatar latents, text and text of no words."""
    frames, side = size
    latents = torch.zeros(2, 1, 4, frames, side, side, device=device, dtype=dtype).normal_()
    texts = torch.zeros(2, 1, 77, width, device=device, dtype=dtype).normal_()
    return latents[0], latents[1], texts[0], texts[1]


def bench_steps(rounds: int) -> list[str]:
    """Rows for one guided step: as the release computes it, and as we do."""
    from diffusers import UNet3DConditionModel

    unet = UNet3DConditionModel(**SMALL_UNET).eval().requires_grad_(False)
    lora = {key: torch.randn(shape) / 10 for key, shape in lora_shapes(unet, 4).items()}
    merged = apply_adapter(unet, Adapter(lora))
    beside = inject_lora(unet, lora).eval()
    noisy, avatar, text, null = inputs(REDUCED, SMALL_UNET["cross_attention_dim"], CPU)

    def step(model, batched):
        return lambda: predict_noise(model, noisy, avatar, 501, text, null, cfg=3.0, batched=batched)

    sides = {
        "released form: two forwards, LoRA beside": step(beside, False),
        "two forwards, LoRA merged": step(merged, False),
        "one batch, LoRA merged": step(merged, True),
    }
    with torch.no_grad():
        seconds = time_side_by_side(sides, CPU, rounds)
        reference = sides["released form: two forwards, LoRA beside"]()
        errors = {name: float((work() - reference).abs().max()) for name, work in sides.items()}
        memory = {name: peak_bytes(work, CPU) for name, work in sides.items()}
    first = seconds["released form: two forwards, LoRA beside"]
    return [
        f"| step, {name} | {statistics.median(times) * 1e3:.0f} ms | {ratio(times, first):.3f}x | "
        f"{memory[name] / 2**20:.0f} MiB | {errors[name]:.1e} |"
        for name, times in seconds.items()
    ]


def bench_pictures(rounds: int) -> list[str]:
    """Rows for the VAE: sixteen frames in and out."""
    from diffusers import AutoencoderKL

    from flexiact_core.amg.pictures import decode_latents, encode_frames

    levels = len(SMALL_VAE["block_out_channels"])
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels}
    vae = AutoencoderKL(**SMALL_VAE, **kinds).eval().requires_grad_(False)
    frames, latents = torch.rand(16, 128, 128, 3), torch.randn(1, 4, 16, 16, 16)
    sides = {
        "encode 16 frames of 128x128": lambda: encode_frames(vae, frames, CPU),
        "decode 16 frames of 128x128": lambda: decode_latents(vae, latents, CPU),
    }
    seconds = time_side_by_side(sides, CPU, rounds)
    return [
        f"| {name} | {statistics.median(times) * 1e3:.0f} ms |  | {peak_bytes(sides[name], CPU) / 2**20:.0f} MiB |  |"
        for name, times in seconds.items()
    ]


def bench_loading() -> list[str]:
    """A row for a file in the release's layout: its size, the weights' share of it, and what entered memory."""
    from diffusers import UNet3DConditionModel

    code = (
        "import resource, sys; from pathlib import Path; import torch; import flexiact_core.amg.loading as loading\n"
        "import diffusers; diffusers.UNet3DConditionModel\n"
        "loading.empty_unet({'in_channels': 8, 'block_out_channels': (32, 64), 'layers_per_block': 1,"
        "'down_block_types': ('CrossAttnDownBlock3D', 'DownBlock3D'),"
        "'up_block_types': ('UpBlock3D', 'CrossAttnUpBlock3D')})\n"
        "def held(): return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()\n"
        "before = held(); amg = loading.load_amg(Path(sys.argv[1]), torch.float16); print(held() - before)"
    )
    unet = UNet3DConditionModel(**SMALL_UNET)
    weights = sum(value.nbytes for value in unet.state_dict().values())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "released.pth"
        rest = {"state": {0: {"exp_avg": torch.ones(weights // 2), "exp_avg_sq": torch.ones(weights // 2)}}}
        torch.save({"state_dict": unet.state_dict(), "optimizer": rest, "step": 640000}, file)
        run = subprocess.run(
            [sys.executable, "-c", code, file], capture_output=True, text=True, check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        size = file.stat().st_size
    return [
        f"| load in fp16: a file of {size / 1e6:.0f} MB with {weights / 1e6:.0f} MB of weights |  |  | "
        f"{int(run.stdout) / 1e6:.0f} MB |  |"
    ]


def count_released() -> list[str]:
    """Rows for the released size, counted: operations of a step, what a forward and the VAE hold, and our estimates."""
    from diffusers import AutoencoderKL

    unet = empty_unet({"in_channels": 8}).to(torch.float16).eval().requires_grad_(False)
    given = inputs(RELEASED, 1024, META, torch.float16)
    rows = []
    for name, batched in (("two forwards", False), ("one batch", True)):
        work = lambda batched=batched: predict_noise(unet, *given[:2], 501, *given[2:], cfg=3.0, batched=batched)  # noqa: E731
        with torch.no_grad():
            flops, held = count_flops(work), peak_bytes(work, META)
        estimate = unet_bytes(unet, *RELEASED, RELEASED[1], 1 + batched, 2)
        rows.append(
            f"| step, 16x256x256, {name} | {flops / 1e12:.2f} T | {held / 2**20:.0f} MiB | {estimate / 2**20:.0f} MiB |"
        )
    with META:
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ).to(torch.float16).eval().requires_grad_(False)  # fmt: skip
    pixels = torch.empty(CHUNK, 3, 256, 256, device=META, dtype=torch.float16)
    latents = torch.empty(CHUNK, 4, 32, 32, device=META, dtype=torch.float16)
    works = {
        "encode 8 of 16 frames": (lambda: vae.encode(pixels), encode_bytes),
        "decode 8 of 16 frames": (lambda: vae.decode(latents), decode_bytes),
    }
    with torch.no_grad():
        for name, (work, estimate) in works.items():
            rows.append(
                f"| {name} of 256x256 | {count_flops(work) / 1e12:.2f} T | {peak_bytes(work, META) / 2**20:.0f} MiB | "
                f"{estimate(vae, 16, 256, 256) / 2**20:.0f} MiB |"
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.amg", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    say("| reduced size, CPU | time | ratio | memory held | error |", "|---|---|---|---|---|")
    say(*bench_steps(arguments.rounds))
    say(*bench_pictures(arguments.rounds))
    say(*bench_loading(), "")
    say("| released size, counted | operations | memory held | our estimate |", "|---|---|---|---|", *count_released())


def say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
