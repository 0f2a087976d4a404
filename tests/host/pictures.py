"""The pictures of README and help pages, made anew: `python -m tests.host.pictures`, a minute or two on two cores.

Screenshots need a Chromium; without one they stay as they are, and that is said.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from flexiact_core.cogvideox.model import decode_latents
from flexiact_core.cogvideox.sampling import make_scheduler, take_steps
from flexiact_core.flexiact.bias import MotionBias
from flexiact_core.plots import BACKGROUND, TEXT, draw_heat_map, draw_lines, to_tensor
from flexiact_core.video import to_frames
from flexiact_core.world import shipped
from flexiact_core.world.cases import STEPS, Case, load_world, transfer_case

from .avatar_pictures import draw_people
from .browser import NO_CHROMIUM, Frontend, find_chromium, open_browser
from .environment import ROOT
from .server import ComfyServer, HostError
from .workflow import find_workflow

DOCS = Path(ROOT) / "web" / "docs"
ACTIONS = ("jump", "slide", "spin", "zoom")
TILE_PX, GAP_PX, LABEL_PX = 92, 4, 62


def main() -> None:
    """Writes the pictures into web/docs. Raises HostError if the quickstart fails in the browser."""
    world = load_world()
    _save(draw_weighting(world), DOCS / "weighting.png")
    rows = {action: sample_example(world, action) for action in ACTIONS}
    _save(draw_transfers({action: videos[:3] for action, videos in rows.items()}), DOCS / "small_world.png")
    shares = rows[ACTIONS[0]][3]
    title = f"{ACTIONS[0]}: share of attention on the action's tokens"
    _save(draw_heat_map(shares, title=title, x_label="step", y_label="layer"), DOCS / "attention.png")
    draw_people().save(DOCS / "avatars.png", optimize=True)
    if find_chromium() is None:
        print(NO_CHROMIUM)
        return
    with tempfile.TemporaryDirectory() as folder, ComfyServer(Path(folder)) as server, open_browser() as browser:
        shoot_quickstart(Frontend(browser, server, "readme", {"Comfy.VueNodes.Enabled": True}))


def shoot_quickstart(frontend: Frontend) -> None:
    """Writes quickstart.png, the graph after it has run, and curve.png, the sampler's picture, from close by.

    Raises HostError if it does not run.
    """
    frontend.drop(find_workflow("flexiact_quickstart"))
    frontend.press_run()
    if (end := frontend.wait_until_heard("execution_success", "execution_error")) != "execution_success":
        raise HostError(f"The quickstart ended with {end}.")
    videos = frontend.page.locator("video[src*='type=output']")
    videos.last.wait_for()
    for number in range(videos.count()):
        # In the middle of the action.
        videos.nth(number).evaluate("(video) => { video.pause(); video.currentTime = 1.1 }")
    frontend.command("Comfy.Canvas.FitView")
    frontend.page.wait_for_timeout(1500)
    left, top, right, bottom = frontend.page.evaluate(
        """() => {
            const { scale, offset } = app.canvas.ds
            const boxes = app.graph.groups.map(({ pos, size }) => [...pos, pos[0] + size[0], pos[1] + size[1]])
            const ends = [0, 1, 2, 3].map((i) => Math[i < 2 ? "min" : "max"](...boxes.map((box) => box[i])))
            return ends.map((end, i) => (end + offset[i % 2]) * scale + (i < 2 ? -8 : 8))
        }"""
    )
    with Image.open(frontend.shoot("quickstart")) as page:
        page.convert("RGB").crop((left, top, right, bottom)).save(DOCS / "quickstart.png", optimize=True)
    print("web/docs/quickstart.png")
    # In full size, with the lower end of the sampler in view.
    frontend.page.evaluate(
        """() => {
            const node = app.graph.nodes.find((node) => node.type === "FlexiActSampler")
            app.canvas.ds.scale = 1.2
            app.canvas.ds.offset = [100 - node.pos[0], 700 - node.pos[1] - node.size[1]]
            app.canvas.setDirty(true, true)
        }"""
    )
    frontend.page.wait_for_timeout(700)
    frontend.page.locator(".flexiact-weighting").screenshot(path=str(DOCS / "curve.png"))
    print("web/docs/curve.png")


def draw_weighting(world, steps: int = 50):
    """The weighting over the steps, as a picture (1, H, W, 3) in 0..1."""
    timesteps = take_steps(make_scheduler(world.base.scheduler_config, "DPM"), steps)
    series = []
    for weighting, strength in (("paper", 1.0), ("paper", 2.0), ("release", 2.0)):
        bias = MotionBias(strength, weighting=weighting)
        values = [bias.at(timestep) for timestep in timesteps]
        series.append((f"{weighting}, bias_strength {strength:g}", list(range(1, steps + 1)), values))
    title = "added weight on the action (logits), hold_until 800, off_below 700"
    return draw_lines(series, title=title, x_label=f"step of {steps}", width_px=480, height_px=260)


@torch.no_grad()
def sample_example(world, action: str, target: int = 0, seed: int = 0):
    """Reference, target and result of an action as frames (T, 64, 64, 3), and the shares of attention (layers, steps)
    that its tokens got."""
    example = shipped.example(action, target)
    shares: list[float] = []
    latents = transfer_case(
        world,
        Case(action, target, example.target, example.caption, seed),
        on_share=lambda layer, share: shares.append(float(share)),
    )
    frames = to_frames(decode_latents(world.base.vae, latents, torch.device("cpu"))).numpy()
    return example.reference, example.image[None], frames, torch.tensor(shares).view(STEPS, -1).T


def draw_transfers(rows: dict[str, tuple[np.ndarray, ...]]):
    """A picture (1, H, W, 3) in 0..1: reference clip, target and result of each action in a row."""
    columns = (("reference clip", 5), ("target", 1), ("result: the target performs the action", 5))
    step = TILE_PX + GAP_PX
    starts, across = [], LABEL_PX
    for _, count in columns:
        starts.append(across)
        across += count * step + 4 * GAP_PX
    sheet = Image.new("RGB", (across, 30 + len(rows) * (step + GAP_PX)), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for start, (label, _) in zip(starts, columns):
        pen.text((start, 14), label, fill=TEXT, anchor="lm", font_size=14)
    for row, (action, videos) in enumerate(rows.items()):
        top = 28 + row * (step + GAP_PX)
        pen.text((8, top + TILE_PX / 2), action, fill=TEXT, anchor="lm", font_size=14)
        for start, (_, count), video in zip(starts, columns, videos):
            for place, index in enumerate(np.linspace(0, len(video) - 1, count).round().astype(int)):
                sheet.paste(tile(video[index], TILE_PX, Image.Resampling.BICUBIC), (start + place * step, top))
    return to_tensor(sheet)


def tile(frame, side_px: int, how: Image.Resampling) -> Image.Image:
    """A frame (H, W, 3) in 0..1 as a square picture."""
    pixels = (np.clip(np.asarray(frame), 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(pixels).resize((side_px, side_px), how)


def _save(picture, path: Path) -> None:
    Image.fromarray((picture[0] * 255).round().byte().numpy()).save(path, optimize=True)
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
