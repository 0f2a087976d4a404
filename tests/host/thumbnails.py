"""Makes the thumbnails of the shipped workflows anew, by running each in a headless ComfyUI.

    .venv/bin/python -m tests.host.thumbnails               # all
    .venv/bin/python -m tests.host.thumbnails flexiact_blend flexiact_batch

A workflow for CogVideoX-5B is run on the small world, with an action of that world, and its thumbnail says so.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from flexiact_core.world import shipped

from .act_vae import poses_instead
from .amg import change_inputs, with_amg_inputs
from .core_models import without_core_models
from .demo import BACKGROUND, contact_sheet, spread, to_images
from .dynamictrl import put_base, put_inputs, with_drawn_poses, with_stand_ins
from .environment import ROOT
from .media import read_frames
from .native import put_lora, with_small_world
from .server import ComfyServer, HostError, Run
from .workflow import find_workflow, short_name, to_prompt

WORKFLOWS = Path(ROOT) / "workflows"
SIDE_PX = 512
GAP_PX = 8
# Workflows for CogVideoX-5B, and the action of the small world in their thumbnails.
STAND_INS = {
    "flexiact_transfer": "slide",
    "flexiact_human": "sway",
    "flexiact_animal": "jump",
    "flexiact_camera": "pan",
    "flexiact_cross_species": "spin",
}
# The same, that learn their action first, or have ComfyUI's own models besides.
LEARNING = {"flexiact_caption": "drop", "flexiact_released": "drop"}
WITH_MORE = {"flexiact_smooth": "slide"} | LEARNING


def main() -> None:
    """Writes thumbnails beside the workflows; exits with the reason if one cannot be made."""
    names = sys.argv[1:] or sorted(short_name(path) for path in WORKFLOWS.glob("*.json"))
    with tempfile.TemporaryDirectory(prefix="flexiact-thumbnails-") as folder:
        try:
            with ComfyServer(Path(folder)) as server:
                for name in names:
                    print(f"Running {name}", flush=True)
                    print(make_thumbnail(server, name, WORKFLOWS), flush=True)
        except (HostError, FileNotFoundError) as error:
            sys.exit(f"No thumbnail. {error}")


def make_thumbnail(server: ComfyServer, name: str, folder: Path) -> Path:
    """`folder`/<name>.jpg: the actions that a workflow uses, and below them the videos that it has just made.

    Raises FileNotFoundError if there is no such workflow, HostError if it fails or saves no video.
    """
    workflow = json.loads(find_workflow(name).read_text(encoding="utf-8"))
    prompt = to_prompt(workflow, server.object_info())
    where = ""
    if action := (STAND_INS | WITH_MORE).get(name):
        prompt = on_small_world(without_core_models(prompt), action, server.base / "input")
        if name in LEARNING:
            prompt = learned_already(prompt, action)
        where = "on the small world, not CogVideoX-5B"
    if name == "flexiact_native_lora":
        put_lora(server.base / "models")
        prompt = with_small_world(prompt, "slide", server.base / "input")
        where = "on the small world, not CogVideoX-5B"
    if name.startswith("amg_") and name != "amg_quickstart":
        # Of noise a little is enough.
        small = {"AMGSampler": {"width": 128, "height": 128, "steps": 3}}
        prompt = change_inputs(with_amg_inputs(prompt, server.base / "input"), small)
        where = "random weights, so noise"
    if name.startswith("dynamictrl_") and name not in ("dynamictrl_quickstart", "dynamictrl_camera"):
        put_base(server.base / "models")
        put_inputs(server.base / "input")
        prompt, where = with_drawn_poses(with_stand_ins(prompt)), "random weights, so noise"
    if name in ("act_vae_image", "act_vae_dynamictrl"):
        prompt, where = poses_instead(prompt), "the predicted poses"
    run = server.run(prompt)
    results = list(_results(server, prompt, run, where))
    if not results:
        raise HostError(f"{name} ended well, but saved no video.")
    references = [(f"reference: {clip.stem}", read_frames(clip)) for clip in _clips(prompt)]
    return _draw(references + results, folder / f"{find_workflow(name).stem}.jpg")


def on_small_world(prompt: dict, action: str, input_folder: Path) -> dict:
    """`prompt`, with models, sizes and words of the small world, and its first target as input_folder/target.png."""
    example = shipped.example(action)
    input_folder.mkdir(parents=True, exist_ok=True)
    to_images([example.image])[0].save(input_folder / "target.png")
    changes = {
        "LoadCogVideoXI2V": {"model": shipped.LABEL},
        "ApplyRefAdapter": {"adapter_file": f"{shipped.LABEL}/{shipped.refadapter_path().name}"},
        "LoadFAEEmbedding": {"fae_file": f"{shipped.LABEL}/{shipped.fae_path(action).name}"},
        "LoadImage": {"image": "target.png"},
        "FlexiActSampler": {
            "prompt": example.caption, "width": 64, "height": 64, "num_frames": 17, "steps": 25, "cfg": 1.0,
        },
    }  # fmt: skip
    return {
        key: {**node, "inputs": node["inputs"] | changes.get(node["class_type"], {})} for key, node in prompt.items()
    }


def learned_already(prompt: dict, action: str) -> dict:
    """`prompt` with an action of the small world in the place of one to be trained, and its target and caption."""
    example = shipped.example(action)
    gone = {"PreviewImage", "LoadVideo", "GetVideoComponents", "PrepareActionClips", "LoadReleasedAction"}
    result = {key: node for key, node in prompt.items() if node["class_type"] not in gone}
    for key, node in result.items():
        if node["class_type"] == "TrainFAE":
            result[key] = {
                "class_type": "LoadFAEEmbedding",
                "inputs": {"fae_file": f"{shipped.LABEL}/{shipped.fae_path(action).name}", "strength": 1.0},
                "_meta": node["_meta"],
            }
        if node["class_type"] == "FlexiActSampler":
            given = {"image": ["target", 0], "prompt": example.caption}
            result[key] = {**node, "inputs": node["inputs"] | given}
    target = {"class_type": "LoadImage", "inputs": {"image": "target.png"}, "_meta": {"title": "target"}}
    return result | {"target": target}


def _results(server: ComfyServer, prompt: dict, run: Run, where: str) -> Iterator[tuple[str, list]]:
    files = server.output_files(run)
    for node in prompt.values():
        if node["class_type"] != "SaveVideo":
            continue
        prefix = Path(node["inputs"]["filename_prefix"]).name
        if prefix.endswith("_reference"):
            continue
        # Avatars are drawn, not sampled.
        label = ", ".join(filter(None, (node["_meta"]["title"].lower(), "" if "avatar" in prefix else where)))
        for file in (file for file in files if re.fullmatch(rf"{prefix}_\d+_", file.stem)):
            yield label, read_frames(file)
            label = ""


def _clips(prompt: dict) -> list[Path]:
    """The clips that the actions of a prompt were learned from, which lie beside them."""
    nodes, shipped_files = list(prompt.values()), shipped.fae_path("jump").parents[1]
    files = [shipped_files / node["inputs"]["fae_file"] for node in nodes if node["class_type"] == "LoadFAEEmbedding"]
    examples = [node["inputs"]["action"] for node in nodes if node["class_type"] == "LoadExampleAction"]
    return [file.with_suffix(".mp4") for file in files or map(shipped.fae_path, examples[:1])]


def _draw(rows: list[tuple[str, list]], file: Path) -> Path:
    # Of three frames, those of an action that goes to and fro would look alike.
    height = (SIDE_PX - GAP_PX) // max(len(rows) + 1, 4) - GAP_PX
    fitted = []
    for label, frames in rows:
        width = round(frames[0].width * height / frames[0].height)
        count = (SIDE_PX - GAP_PX) // (width + GAP_PX)
        fitted.append((label, [frame.resize((width, height)) for frame in spread(frames, count)]))
    sheet = Image.open(contact_sheet(fitted, file))
    square = Image.new("RGB", (SIDE_PX, SIDE_PX), BACKGROUND)
    square.paste(sheet, ((SIDE_PX - sheet.width) // 2, (SIDE_PX - sheet.height) // 2))
    square.save(file, quality=90)
    return file


if __name__ == "__main__":
    main()
