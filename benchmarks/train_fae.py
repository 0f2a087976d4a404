"""How long Train Action takes to learn an action of the small world in a real ComfyUI, and how well it has learned it:
`python -m benchmarks.train_fae`.

Seconds are from queueing to the saved action, the base's loading and the clip's encoding included. Accuracy and slope
are those of held-out targets (flexiact_core/world/cases.py).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from flexiact_core.flexiact.fae import load_fae
from flexiact_core.world import shipped
from flexiact_core.world.cases import SETTINGS, load_world, make_cases, measure_cases, sample_videos
from tests.host.server import ComfyServer


def prompt_of(action: str, steps: int) -> dict:
    """The prompt that learns an action from its example clip, as flexiact_train.json does."""
    nodes = {
        "base": ("LoadCogVideoXI2V", {"model": shipped.LABEL, "components": "auto", "dtype": "auto"}),
        "example": ("LoadExampleAction", {"target": 0, "action": action}),
        "clips": ("PrepareActionClips", {
            "model": ["base", 0], "reference": ["example", 2], "caption": ["example", 3], "fps": 8.0, "start": 0.0,
            "duration": 0.0, "crops": 12, "smallest_scale": 0.8, "largest_scale": 1.2, "flip": False, "seed": 0}),
        "train": ("TrainFAE", {
            "model": ["base", 0], "reference": ["clips", 0], "caption": "", "name": action, "steps": steps,
            "learning_rate": 0.03, "crops": 12, "batch_size": 8, "checkpoint_every": steps, "sample_every": 0,
            "sample_cfg": 1.0, "resume": False, "released_format": False, "seed": 0, "gradient_checkpointing": "auto"}),
        "curve": ("SaveImage", {"images": ["train", 1], "filename_prefix": "curve"}),
    }  # fmt: skip
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--actions", default="jump,slide,drop,grow,pan")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--targets", type=int, default=8, help="held-out targets that each action is measured on")
    arguments = parser.parse_args()
    world = load_world()
    print("| action | steps | seconds | accuracy | slope |\n|---|---|---|---|---|")
    for action in arguments.actions.split(","):
        # A new server for each: nothing is loaded or cached before.
        with tempfile.TemporaryDirectory() as folder, ComfyServer(Path(folder)) as server:
            started = time.monotonic()
            server.run(prompt_of(action, arguments.steps))
            seconds = time.monotonic() - started
            tokens = load_fae(server.base / "models" / "flexiact" / "fae" / f"{action}.safetensors").tokens
        cases = make_cases(action, SETTINGS["weighted"], arguments.targets, 1)
        records = measure_cases(cases, sample_videos(world, cases, tokens))
        accuracy, slope = (statistics.mean(record[value] for record in records) for value in ("accuracy", "slope"))
        print(f"| {action} | {arguments.steps} | {seconds:.0f} | {accuracy:.2f} | {slope:.2f} |", flush=True)


if __name__ == "__main__":
    main()
