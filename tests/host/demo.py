"""`make demo`: a headless ComfyUI runs the quickstart workflow on the small world that ships with the pack."""

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

from .environment import ROOT, SetupError
from .media import read_frames
from .server import ComfyServer, HostError
from .workflow import WorkflowError, check_workflow, find_workflow, to_prompt

WORKFLOW = find_workflow("flexiact_quickstart")
RESULTS = Path(ROOT) / ".demo"
BACKGROUND = (24, 24, 24)


def main() -> None:
    """Writes the video and the contact sheet; exits with the reason if that fails."""
    # A `kill` then ends the server too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))
    try:
        run_demo(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
    except (HostError, WorkflowError, SetupError) as error:
        sys.exit(f"The demo failed. {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")


def run_demo(results: Path) -> tuple[Path, Path]:
    """Paths of the video and of the contact sheet, both in the folder `results`.

    Raises HostError if the video is not what was asked for.
    """
    started = time.monotonic()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flexiact-demo-") as folder:
        server = ComfyServer(Path(folder))
        print("Starting ComfyUI without a window", flush=True)
        try:
            with server:
                prompt, run = _queue(server)
                saved = _saved(server, prompt, run)
        finally:
            if server.log_path.exists():
                shutil.copyfile(server.log_path, results / "server.log")
        reference, video = (
            Path(shutil.copyfile(saved[name], results / f"{name}.mp4"))
            for name in ("quickstart_reference", "quickstart")
        )
        sheet = _write_sheet(prompt, reference, video, results / "contact_sheet.png")
    print(f"Done in {time.monotonic() - started:.0f} s\nVideo:         {video}\nContact sheet: {sheet}")
    return video, sheet


def _queue(server: ComfyServer):
    if faults := server.import_errors():
        raise HostError("ComfyUI did not accept the pack:\n" + "\n".join(faults))
    workflow, object_info = json.loads(WORKFLOW.read_text(encoding="utf-8")), server.object_info()
    if faults := check_workflow(workflow, object_info):
        raise HostError(f"{WORKFLOW.name} does not fit the nodes:\n" + "\n".join(faults))
    prompt = to_prompt(workflow, object_info)
    print(f"Running {WORKFLOW.name}", flush=True)
    return prompt, server.run(prompt, on_step=_progress(prompt))


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


def _saved(server: ComfyServer, prompt: dict, run) -> dict[str, Path]:
    """The videos that were saved, by the name that their Save Video node gives."""
    files = {file for file in server.output_files(run) if file.suffix == ".mp4"}
    named = {}
    for node in prompt.values():
        if node["class_type"] == "SaveVideo":
            prefix = Path(node["inputs"]["filename_prefix"]).name
            for file in (file for file in files if re.fullmatch(rf"{prefix}_\d+_", file.stem)):
                named[prefix] = file
    if missing := {"quickstart", "quickstart_reference"} - named.keys():
        raise HostError(f"The workflow ended well, but saved no video called {' or '.join(sorted(missing))}.")
    return named


def _write_sheet(prompt: dict, reference: Path, video: Path, sheet: Path) -> Path:
    from PIL import ImageOps

    clip, target, frames = read_frames(reference), _target(prompt), read_frames(video)
    size = target.size
    if len(frames) != len(clip) or frames[0].size != size:
        found = f"{len(frames)} frames of {frames[0].size}" if frames else "no frames"
        raise HostError(f"{video} has {found}, not {len(clip)} of {size}.")
    rows = [
        ("reference clip", spread(clip)),
        ("target image", [target]),
        ("result: the target does what the reference does", spread(frames)),
    ]
    side = 160 * size[0] // max(size), 160 * size[1] // max(size)
    rows = [(label, [ImageOps.fit(image, side) for image in images]) for label, images in rows]
    return contact_sheet(rows, sheet)


def _target(prompt: dict):
    from PIL import Image

    sys.path.append(ROOT)
    from flexiact_core.world.shipped import example

    inputs = next(node["inputs"] for node in prompt.values() if node["class_type"] == "LoadExampleAction")
    return Image.fromarray((example(inputs["action"], inputs["target"]).image * 255).round().astype("uint8"))


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
