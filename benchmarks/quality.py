"""What step caches, float8 weights and tiled decoding change, on the small world: `python -m benchmarks.quality`.

Also how long a video of that size is in its VAE, beside diffusers' own call.

Every video is made exactly and in each other way from the same noise. PSNR is that of the frames against the exact
video's; accuracy and slope say whether the action is still done (flexiact_core/world/measure.py).
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from benchmarks.measure import clock, peak_bytes, ratio, time_side_by_side
from flexiact_core.cogvideox.acceleration import EXACT, Acceleration
from flexiact_core.cogvideox.loading import load_base
from flexiact_core.cogvideox.model import decode_latents, encode_pixels
from flexiact_core.metrics.video import video_psnr_db
from flexiact_core.video import to_frames, to_model_pixels
from flexiact_core.world import shipped
from flexiact_core.world.cases import SETTINGS, Case, World, load_world, make_cases, transfer_case
from flexiact_core.world.measure import measure_action
from flexiact_core.world.render import render_clip

CPU = torch.device("cpu")
FLOAT8 = torch.float8_e4m3fn
DRAWN = ("exact", "first_block 0.2", "taylor 3", "taylor 5")
CHOICES = {
    "exact": EXACT,
    "first_block 0.05": Acceleration("first_block", threshold=0.05),
    "first_block 0.1": Acceleration("first_block", threshold=0.1),
    "first_block 0.2": Acceleration("first_block", threshold=0.2),
    "taylor 2": Acceleration("taylor", interval=2),
    "taylor 3": Acceleration("taylor", interval=3),
    "taylor 4": Acceleration("taylor", interval=4),
    "taylor 5": Acceleration("taylor", interval=5),
}


@torch.no_grad()
def make_video(world: World, case: Case, scheduler: str, acceleration: Acceleration, steps: int):
    """The frames (17, 64, 64, 3) in 0..1 of one case, and the seconds that its latents took."""
    started = clock(CPU)
    latents = transfer_case(world, case, steps=steps, scheduler=scheduler, acceleration=acceleration)
    seconds = clock(CPU) - started
    return to_frames(decode_latents(world.base.vae, latents, CPU)).numpy(), seconds


def in_float8(world: World, weights: Path, products: bool = False) -> World:
    """The same world with its big matrices rounded to float8, and with `products` what they are multiplied by, too.

    Computed in float32, so no faster here.
    """
    folder = shipped.base_folder(weights)
    base = load_base(folder, folder, torch.float32, keep_float8=True)
    rounded = [layer for layer in base.transformer.modules() if _in_float8(layer)]
    base.transformer.float()
    if products:
        for layer in rounded:
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].clamp(-448, 448).to(FLOAT8).float(),))
    return replace(world, base=base)


def _in_float8(layer) -> bool:
    return isinstance(layer, torch.nn.Linear) and layer.weight.dtype == FLOAT8


def compare(world: World, weights: Path, scheduler: str, cases: list[Case], steps: int) -> list[str]:
    """Rows of the table for one scheduler. Each case is made in all ways in turn, so that all meet the same machine."""
    ways = {name: (world, acceleration) for name, acceleration in CHOICES.items()}
    ways["float8 weights"] = (in_float8(world, weights), EXACT)
    ways["float8 weights and products"] = (in_float8(world, weights, products=True), EXACT)
    found: dict[str, list[tuple]] = {name: [] for name in ways}
    for case in cases:
        made = {name: make_video(base, case, scheduler, way, steps) for name, (base, way) in ways.items()}
        exact, full = made["exact"]
        for name, (video, seconds) in made.items():
            action = measure_action(video, case.scene, case.action)
            found[name].append(
                (full / seconds, video_psnr_db(video, exact), action.nearest == case.action, action.slope)
            )
    rows = []
    for name, values in found.items():
        gains, nearness, hits, slopes = zip(*values, strict=True)
        cells = (f"{statistics.median(gains):.2f}x", f"{statistics.median(nearness):.1f} dB")
        cells += (f"{statistics.mean(hits):.2f}", f"{statistics.mean(slopes):.2f}")
        rows.append(f"| {scheduler} | {name} | " + " | ".join(cells) + " |")
    return rows


def draw(world: World, case: Case, scheduler: str, steps: int, file: Path) -> Path:
    """`file`, a picture with a row of frames of one case for each way in DRAWN."""
    from tests.host.demo import contact_sheet, spread

    rows = []
    for name in DRAWN:
        video, _ = make_video(world, case, scheduler, CHOICES[name], steps)
        frames = [Image.fromarray((frame * 255).round().astype("uint8")).resize((96, 96)) for frame in video]
        rows.append((f"{name}: {case.action}, {scheduler}, {steps} steps", spread(frames)))
    return contact_sheet(rows, file)


def decode_as_diffusers(vae, latents: torch.Tensor) -> torch.Tensor:
    """Pixels (1, 3, T, H, W) of latents (1, L, C, h, w), whole, by the VAE's own call."""
    return vae.decode(latents.transpose(1, 2) / vae.config.scaling_factor).sample


@torch.no_grad()
def compare_decodes(world: World, action: str = "pan") -> list[str]:
    """Rows on 480x720 frames decoded in tiles against the same latents decoded whole, by the small world's VAE."""
    vae = world.base.vae
    frames = torch.from_numpy(render_clip(shipped.REFERENCE, action).frames[:9])
    large = torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2), (480, 720), mode="bicubic").clamp(0, 1)
    posterior = encode_pixels(vae, to_model_pixels(large.permute(0, 2, 3, 1)), CPU)
    latents = posterior.mean * vae.config.scaling_factor
    tiled = to_frames(decode_latents(vae, latents, CPU))
    whole = to_frames(decode_as_diffusers(vae, latents))
    # Tiles of 240x360 overlap by a sixth and a fifth; there they are blended into each other.
    seams = torch.zeros(480, 720, dtype=torch.bool)
    for start in (200, 400):
        seams[start : start + 40] = True
    for start in (288, 576):
        seams[:, start : start + 72] = True
    error = (tiled - whole).abs().mean((0, 3))
    return [
        "| 480x720, 9 frames, in tiles against whole | |\n|---|---|",
        f"| PSNR | {video_psnr_db(tiled.numpy(), whole.numpy()):.1f} dB |",
        f"| mean difference where tiles are blended | {error[seams].mean() * 255:.2f} of 255 |",
        f"| mean difference elsewhere | {error[~seams].mean() * 255:.2f} of 255 |",
        f"| largest difference | {(tiled - whole).abs().max() * 255:.1f} of 255 |",
    ]


@torch.no_grad()
def time_small_videos(world: World, rounds: int = 9) -> list[str]:
    """Rows on one video of 17x64x64 into the small world's VAE and out of it: by our calls and by diffusers' own."""
    vae = world.base.vae
    pixels = to_model_pixels(torch.from_numpy(render_clip(shipped.REFERENCE, "jump").frames))
    latents = encode_pixels(vae, pixels, CPU).mean * vae.config.scaling_factor
    pairs = {
        "encode": (lambda: encode_pixels(vae, pixels, CPU), lambda: vae.encode(pixels)),
        "decode": (lambda: decode_latents(vae, latents, CPU), lambda: decode_as_diffusers(vae, latents)),
    }
    rows = ["| 17x64x64, float32 | ours | diffusers | ratio | memory, ours | memory, diffusers |", "|---" * 6 + "|"]
    for name, (ours, plain) in pairs.items():
        seconds = time_side_by_side({"ours": ours, "diffusers": plain}, CPU, rounds)
        times = " | ".join(f"{statistics.median(side) * 1e3:.0f} ms" for side in seconds.values())
        memory = " | ".join(f"{peak_bytes(work, CPU) / 2**20:.0f} MiB" for work in (ours, plain))
        rows.append(f"| {name} | {times} | {ratio(seconds['ours'], seconds['diffusers']):.2f}x | {memory} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", type=Path, default=shipped.WEIGHTS, help="folder of the small world's weights")
    parser.add_argument("--targets", type=int, default=4, help="held-out targets for each action")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--picture", type=Path, help="also draws one video made in some of the ways")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = load_world(arguments.weights)
    if arguments.picture:
        print(draw(world, make_cases("jump", SETTINGS["weighted"], 1, 1)[0], "DPM", arguments.steps, arguments.picture))
    cases = [
        case
        for action in world.faes
        for case in make_cases(action, SETTINGS["weighted"], arguments.targets, arguments.seeds)
    ]
    print(f"{len(world.faes)} actions, {len(cases)} videos, {arguments.steps} steps.\n")
    print("| scheduler | way | denoising faster by | PSNR to exact | accuracy | slope |\n|---|---|---|---|---|---|")
    for scheduler in ("DPM", "DDIM"):
        print(*compare(world, arguments.weights, scheduler, cases, arguments.steps), sep="\n", flush=True)
    print("", *compare_decodes(world), "", *time_small_videos(world), sep="\n")


if __name__ == "__main__":
    main()
