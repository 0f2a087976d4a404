"""Lists of jobs on the small world, a few steps each, and the authors' benchmark layout made of it."""

from __future__ import annotations

import csv
from pathlib import Path

from PIL import Image

from flexiact_core.video_files import encode_video
from flexiact_core.world.shipped import FPS, example

QUICK = "steps=2 num_frames=9"


def write_picture(path: Path, action: str, target: int) -> str:
    """A target picture of the small world as a file, and its caption."""
    made = example(action, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((made.image * 255).round().astype("uint8")).save(path)
    return made.caption


def write_list(path: Path, rows: list[dict]) -> Path:
    """A CSV list of rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jobs(folder: Path, count: int) -> Path:
    """A list of `count` jobs, with the pictures beside it: two actions, other seeds."""
    rows = []
    for number in range(count):
        action = ("jump", "slide")[number % 2]
        caption = write_picture(folder / f"{action}.png", action, 0)
        rows.append({"system": "flexiact", "picture": f"{action}.png", "action": action, "prompt": caption,
                     "seed": number, "settings": QUICK})  # fmt: skip
    return write_list(folder / "jobs.csv", rows)


def write_benchmark(folder: Path, actions: tuple[str, ...] = ("jump", "slide"), targets: int = 2) -> Path:
    """The authors' benchmark layout, of the small world: kinds human and animal, an action each."""
    import torch

    for kind, action in zip(("animal", "human"), actions, strict=True):
        place = folder / "captions" / kind / action
        place.mkdir(parents=True)
        video = f"benchmark/reference_videos/{kind}/{action}/0.mp4"
        made = example(action)
        file = folder / Path(video).relative_to("benchmark")
        file.parent.mkdir(parents=True)
        file.write_bytes(encode_video(torch.from_numpy(made.reference), FPS))
        with (place / "crop.csv").open("w", newline="") as lines:
            row = [video, 0, len(made.reference), FPS, 0, made.reference_caption]
            csv.writer(lines).writerows([["path", "start_frame", "end_frame", "fps", "x", "caption"], row])
        with (place / "val_image.csv").open("w", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerow(["path", "caption"])
            for target in range(targets):
                name = f"{action}_{target}.png"
                caption = write_picture(folder / "target_image" / kind / name, action, target)
                writer.writerow([f"benchmark/target_image/{kind}/{name}", caption])
    return folder
