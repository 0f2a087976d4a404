"""`make demo`: a headless ComfyUI runs two quickstart workflows on the small models that ship with the pack."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from .environment import ROOT, SetupError
from .media import read_frames, write_large
from .server import ComfyServer, HostError
from .workflow import WorkflowError, check_workflow, find_workflow, to_prompt

ACTION, POSES = find_workflow("flexiact_quickstart"), find_workflow("dynamictrl_quickstart")
RESULTS = Path(ROOT) / ".demo"
BACKGROUND = (24, 24, 24)


def main() -> None:
    """Writes the videos and the contact sheet; exits with the reason if that fails."""
    # A `kill` then ends the server too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))
    try:
        run_demo(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
    except (HostError, WorkflowError, SetupError) as error:
        sys.exit(f"The demo failed. {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")


def run_demo(results: Path) -> None:
    """Writes the videos, four times as large, and a sheet of them into the folder `results`, and prints their paths.

    Raises HostError if a video is not what was asked for.
    """
    started = time.monotonic()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flexiact-demo-") as folder:
        server = ComfyServer(Path(folder))
        print("Starting ComfyUI without a window", flush=True)
        try:
            with server:
                if faults := server.import_errors():
                    raise HostError("ComfyUI did not accept the pack:\n" + "\n".join(faults))
                action, made = _run(server, ACTION, ["quickstart_reference", "quickstart"])
                poses, moved = _run(server, POSES, ["dynamictrl_quickstart"])
        finally:
            if server.log_path.exists():
                shutil.copyfile(server.log_path, results / "server.log")
        for name, file in (made | moved).items():
            write_large(file, results / f"{name}.mp4")
        videos = {name: read_frames(file) for name, file in (made | moved).items()}
    rows = [
        (label, [image.resize((160, 160), 0) for image in images])
        for label, images in _rows_of_action(action, videos) + _rows_of_poses(poses, videos)
    ]
    sheet = contact_sheet(rows, results / "contact_sheet.png")
    print(f"Done in {time.monotonic() - started:.0f} s\nVideos:        {results / 'quickstart.mp4'}")
    print(f"               {results / 'dynamictrl_quickstart.mp4'}\nContact sheet: {sheet}")


def _run(server: ComfyServer, path: Path, names: list[str]) -> tuple[dict, dict[str, Path]]:
    """A workflow's prompt, and the videos of these names that it has just saved."""
    workflow, object_info = json.loads(path.read_text(encoding="utf-8")), server.object_info()
    if faults := check_workflow(workflow, object_info):
        raise HostError(f"{path.name} does not fit the nodes:\n" + "\n".join(faults))
    prompt = to_prompt(workflow, object_info)
    print(f"Running {path.name}", flush=True)
    return prompt, _saved(server, prompt, server.run(prompt, on_step=_progress(prompt)), names)


def _progress(prompt: dict):
    shown: dict[tuple[str, int], int] = {}

    def show(node_id: str, value: int, maximum: int) -> None:
        title = prompt[node_id]["_meta"]["title"]
        if sys.stdout.isatty():
            print(f"\r  {title}: step {value} of {maximum} ", end="\n" if value == maximum else "", flush=True)
        elif maximum > 1 and value * 4 // maximum > shown.get((node_id, maximum), 0):
            # A line per step would bury the rest of a log.
            shown[node_id, maximum] = value * 4 // maximum
            print(f"  {title}: step {value} of {maximum}", flush=True)

    return show


def _saved(server: ComfyServer, prompt: dict, run, names: list[str]) -> dict[str, Path]:
    """The videos that were saved, by the name that their Save Video node gives. Raises HostError if one is missing."""
    files = {file for file in server.output_files(run) if file.suffix == ".mp4"}
    named = {}
    for node in prompt.values():
        if node["class_type"] == "SaveVideo":
            prefix = Path(node["inputs"]["filename_prefix"]).name
            for file in (file for file in files if re.fullmatch(rf"{prefix}_\d+_", file.stem)):
                named[prefix] = file
    if missing := set(names) - named.keys():
        raise HostError(f"The workflow ended well, but saved no video called {' or '.join(sorted(missing))}.")
    return named


def _rows_of_action(prompt: dict, videos: dict[str, list]) -> list[tuple[str, list]]:
    clip, target, frames = videos["quickstart_reference"], _target(prompt), videos["quickstart"]
    _check("quickstart", frames, len(clip), target.size)
    return [
        ("reference clip", spread(clip)),
        ("target image", [target]),
        ("result: the target does what the reference does", spread(frames)),
    ]


def _rows_of_poses(prompt: dict, videos: dict[str, list]) -> list[tuple[str, list]]:
    from flexiact_core.world.actor_cases import driving, example_case, picture_of

    inputs = next(node["inputs"] for node in prompt.values() if node["class_type"] == "LoadExamplePerson")
    case = example_case(inputs["person"], inputs["action"])
    poses, (picture,) = to_images(driving(case)), to_images(picture_of(case.actor))
    frames = videos["dynamictrl_quickstart"]
    _check("dynamictrl_quickstart", frames, len(poses), picture.size)
    return [
        ("poses", spread(poses)),
        ("picture of a person", [picture]),
        ("result: the person does what the poses show", spread(frames)),
    ]


def _check(name: str, frames: list, wanted: int, size: tuple[int, int]) -> None:
    if len(frames) != wanted or frames[0].size != size:
        found = f"{len(frames)} frames of {frames[0].size}" if frames else "no frames"
        raise HostError(f"{name}.mp4 has {found}, not {wanted} of {size}.")


def _target(prompt: dict):
    from flexiact_core.world.shipped import example

    inputs = next(node["inputs"] for node in prompt.values() if node["class_type"] == "LoadExampleAction")
    return to_images([example(inputs["action"], inputs["target"]).image])[0]


def to_images(frames) -> list:
    """Pictures of frames (T, H, W, 3) in 0..1."""
    from PIL import Image

    return [Image.fromarray((np.asarray(frame) * 255).round().astype("uint8")) for frame in frames]


def spread(frames: list, count: int = 9) -> list:
    """`count` of the frames, evenly spaced, the first and the last among them."""
    return [frames[round(i * (len(frames) - 1) / (count - 1))] for i in range(count)]


def contact_sheet(rows: list[tuple[str, list]], file: Path) -> Path:
    """`file`, a picture with one labelled row per (label, images), all images of one height."""
    from PIL import Image, ImageDraw, ImageFont

    gap, label_height = 8, 26
    height = rows[0][1][0].height
    width = max(sum(image.width + gap for image in images) for _, images in rows)
    sheet = Image.new("RGB", (gap + width, gap + len(rows) * (height + label_height + gap)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for row, (label, images) in enumerate(rows):
        top = gap + row * (height + label_height + gap)
        draw.text((gap, top), label, fill=(230, 230, 230), font=ImageFont.load_default(16))
        left = gap
        for image in images:
            sheet.paste(image, (left, top + label_height))
            left += image.width + gap
    sheet.save(file)
    return file


if __name__ == "__main__":
    main()
