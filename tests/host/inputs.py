"""Draws anew the pictures and the clips that workflows begin with: `.venv/bin/python -m tests.host.inputs`.

People are those that ship with the pack; the animal and the view are drawn here. They lie in workflows/inputs, and the
pack puts them into ComfyUI's input folder, so that no workflow opens with a picture missing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from flexiact_core.avatars.camera import Camera, look_rotation
from flexiact_core.avatars.scene import Scene, place_avatar, render_scene
from flexiact_core.avatars.shipped import shipped_avatar

from .environment import ROOT

INPUTS = Path(ROOT) / "workflows" / "inputs"
WIDE, TALL = (720, 480), (384, 680)
TWICE = 2  # drawn at twice the size, then scaled: soft edges
SECONDS, FPS = 4, 16


def main() -> None:
    """Writes every file of workflows/inputs, and prints its name and size."""
    INPUTS.mkdir(exist_ok=True)
    _people("woman", "wave", WIDE, 1)[0].save(INPUTS / "flexiact_person.jpg", quality=90)
    _people("woman", "turn", TALL, 1)[0].save(INPUTS / "flexiact_person_tall.jpg", quality=90)
    _animal().save(INPUTS / "flexiact_animal.jpg", quality=90)
    _view().save(INPUTS / "flexiact_view.jpg", quality=90)
    _save_clip(_people("man", "dance", TALL, SECONDS * FPS), INPUTS / "flexiact_driving.mp4")
    _save_clip(_people("man", "dance", WIDE, SECONDS * FPS), INPUTS / "flexiact_reference.mp4")
    for file in sorted(INPUTS.iterdir()):
        print(file.name, file.stat().st_size)


def _people(name: str, clip: str, size: tuple[int, int], count: int) -> list[Image.Image]:
    placed = place_avatar(shipped_avatar(name), clip=clip, start=0.0, turn=0, fit=False)
    position, target = (0.0, 1.3, 6.2), (0.0, 0.95, 0.0)
    camera = Camera(position, target, look_rotation(position, target), fov=24 if size == WIDE else 14)
    film = render_scene(
        Scene((placed,)), camera=camera, num_frames=count, fps=FPS, width=size[0], height=size[1], antialias=4
    )
    room = np.asarray(_room(size), np.float32) / 255
    covered = film.masks.numpy()[..., None]
    frames = film.frames.numpy() * covered + room * (1 - covered)
    return [Image.fromarray((frame * 255).round().astype(np.uint8)) for frame in frames]


def _gradient(size: tuple[int, int], top: tuple, bottom: tuple) -> Image.Image:
    share = np.linspace(0, 1, size[1])[:, None, None]
    rows = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
    return Image.fromarray(np.broadcast_to(rows, (size[1], size[0], 3)).round().astype(np.uint8))


def _room(size: tuple[int, int]) -> Image.Image:
    room = _gradient(size, (196, 206, 214), (226, 222, 212))
    floor = round(size[1] * 0.8)
    room.paste(_gradient((size[0], size[1] - floor), (150, 122, 96), (178, 148, 118)), (0, floor))
    ImageDraw.Draw(room).rectangle([0, floor - 5, size[0], floor], fill=(238, 236, 230))
    return room


def _view() -> Image.Image:
    width, height = (TWICE * side for side in WIDE)
    view = _gradient((width, height), (110, 170, 226), (232, 232, 214))
    draw = ImageDraw.Draw(view)
    draw.ellipse([1100, 90, 1210, 200], fill=(255, 244, 204))
    across = np.arange(0, width + 20, 20)
    for base, swing, length, colour in (
        (520, 70, 210, (128, 152, 176)), (590, 60, 150, (104, 142, 128)), (660, 40, 260, (92, 140, 84)),
    ):  # fmt: skip
        ridge = base - swing * np.sin(across / length) - swing / 3 * np.sin(across / length * 2.7 + 1)
        draw.polygon([*zip(across.tolist(), ridge.tolist()), (width, height), (0, height)], fill=colour)
    draw.polygon([(640, height), (900, height), (748, 700), (735, 700)], fill=(206, 184, 140))
    for x, y, side in ((190, 760, 100), (360, 720, 66), (1120, 790, 120), (980, 710, 56), (520, 705, 44)):
        draw.rectangle([x - side * 0.07, y, x + side * 0.07, y + side * 0.5], fill=(94, 70, 50))
        for level in range(3):
            half, top = side * (0.5 - 0.11 * level), y - side * (0.25 + 0.45 * level)
            draw.polygon([(x - half, top + side * 0.5), (x + half, top + side * 0.5), (x, top - side * 0.3)],
                         fill=(52, 98 + 8 * level, 62))  # fmt: skip
    return view.resize(WIDE, Image.Resampling.LANCZOS)


def _animal() -> Image.Image:
    width, height = (TWICE * side for side in WIDE)
    scene = _gradient((width, height), (170, 206, 236), (226, 234, 226))
    draw = ImageDraw.Draw(scene)
    draw.ellipse([-300, 560, 1000, 1300], fill=(126, 168, 104))
    draw.ellipse([500, 600, 1900, 1400], fill=(112, 156, 94))
    draw.ellipse([470, 760, 1040, 830], fill=(88, 128, 76))
    fur, dark, light = (128, 124, 130), (96, 92, 100), (214, 208, 204)
    for x, shade in ((570, dark), (900, dark), (630, fur), (850, fur)):
        draw.rounded_rectangle([x - 26, 560, x + 26, 800], 24, fill=shade)
        draw.ellipse([x - 34, 772, x + 40, 812], fill=shade)
    draw.polygon([(560, 500), (430, 430), (360, 560), (400, 640), (470, 560), (580, 590)], fill=dark)
    draw.ellipse([520, 430, 960, 660], fill=fur)
    draw.ellipse([600, 560, 900, 672], fill=light)
    draw.polygon([(840, 460), (920, 300), (1040, 330), (980, 560), (880, 610)], fill=fur)
    draw.ellipse([900, 230, 1100, 420], fill=fur)
    draw.polygon([(1040, 300), (1200, 350), (1196, 392), (1040, 410)], fill=light)
    draw.ellipse([1168, 340, 1212, 376], fill=(40, 36, 40))
    for left in (915, 1000):
        draw.polygon([(left, 260), (left + 30, 140), (left + 80, 250)], fill=dark)
    draw.ellipse([1040, 290, 1066, 318], fill=(232, 190, 80))
    draw.ellipse([1050, 296, 1062, 312], fill=(30, 26, 30))
    draw.line([(1070, 398), (1180, 388)], fill=(80, 70, 74), width=5)
    return scene.filter(ImageFilter.GaussianBlur(0.8)).resize(WIDE, Image.Resampling.LANCZOS)


def _save_clip(frames: list[Image.Image], file: Path) -> None:
    import av

    with av.open(str(file), "w") as container:
        width, height = frames[0].size
        stream = container.add_stream("h264", rate=FPS, width=width, height=height, pix_fmt="yuv420p")
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
