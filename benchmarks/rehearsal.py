"""The released files at full size, with random weights, in a real ComfyUI: `python -m benchmarks.rehearsal FOLDER`.

Writes FOLDER (21 GB; what is there already is kept), starts a server on it, and loads the base, the RefAdapter and an
action through the nodes. Prints seconds and resident memory of each stage: of the process's own, and of files that it
has mapped, which the system takes back when others need it. Needs no GPU; with --gpu also one step and the decode.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.full_size import ACTION, ADAPTER, NAME, write_base, write_flexiact
from tests.host.media import put_photo
from tests.host.server import ComfyServer


def prompt_of(dtype: str, last: str, seed: int = 0) -> dict:
    """The prompt that loads in `dtype` and ends with the node `last`: base, adapter, action or sampler."""
    nodes = {
        "base": ("LoadCogVideoXI2V", {"model": NAME, "components": "auto", "dtype": dtype, "weights": "as stored"}),
        "adapter": ("ApplyRefAdapter", {"model": ["base", 0], "adapter_file": ADAPTER, "weight": 0.7}),
        "action": ("LoadFAEEmbedding", {"fae_file": ACTION, "strength": 1.0}),
        "photo": ("LoadImage", {"image": "photo.png"}),
        "sampler": ("FlexiActSampler", {
            "model": ["adapter", 0], "image": ["photo", 0], "fae": ["action", 0], "prompt": "a cat dances",
            "negative_prompt": "", "width": 720, "height": 480, "num_frames": 49, "steps": 1, "cfg": 6.0,
            "bias_strength": 1.0, "hold_until": 800, "off_below": 700, "seed": seed, "scheduler": "DPM",
            "weighting": "paper"}),
    }  # fmt: skip
    prompt = {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}
    end = ("SaveImage", {"images": [last, 0], "filename_prefix": "rehearsal"}) if last == "sampler" else None
    kind, inputs = end or ("PreviewAny", {"source": [last, 0]})
    return prompt | {"end": {"class_type": kind, "inputs": inputs}}


def resident(pid: int) -> tuple[float, float]:
    """Gigabytes of a process that lie in memory: its own, and those of files it has mapped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return kilobytes["RssAnon"] / 1e6, kilobytes["RssFile"] / 1e6


def stage(name: str, work: Callable[[], object], pid: Callable[[], int]) -> None:
    """Nothing; does the work and prints its row."""
    started = time.monotonic()
    said = work()
    own, mapped = resident(pid())
    seconds = time.monotonic() - started
    name += f": {said}" if isinstance(said, str) else ""
    print(f"| {name} | {seconds:.0f} | {own:.2f} | {mapped:.2f} |", flush=True)


def refusal(server: ComfyServer, prompt: dict) -> str:
    """What the server says to a prompt that it ends with a sentence; "done" if it goes through."""
    run = server.run(prompt, check=False, timeout_seconds=3600)
    return f'"{run.error}"' if run.status == "error" else "done"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="a ComfyUI base directory to make, with 22 GB of room")
    parser.add_argument("--gpu", action="store_true", help="on the GPU, one step and the decode too")
    arguments = parser.parse_args()
    models, dtype = arguments.folder / "models", "auto" if arguments.gpu else "bf16"
    server = ComfyServer(arguments.folder, "--disable-auto-launch" if arguments.gpu else "--cpu")
    put_photo(server.base / "input")
    print("| stage | seconds | own memory, GB | of mapped files, GB |\n|---|---|---|---|", flush=True)
    if not (models / "CogVideo" / NAME / "tokenizer" / "spiece.model").exists():
        stage("writing the base", lambda: write_base(models) and None, os.getpid)
        stage("writing adapter and action", lambda: write_flexiact(models), os.getpid)
    with server:
        stage("the server's nodes", lambda: server.object_info() and None, lambda: server.process.pid)
        for last, name in (("base", "Load CogVideoX I2V"), ("adapter", "Apply RefAdapter"), ("action", "Load FAE")):
            prompt = prompt_of(dtype, last)
            stage(f"{name}, {dtype}", lambda prompt=prompt: server.run(prompt) and None, lambda: server.process.pid)
        if arguments.gpu:
            prompt = prompt_of(dtype, "sampler")
            stage("one step and the decode", lambda: server.run(prompt) and None, lambda: server.process.pid)
        else:
            prompt = prompt_of("fp32", "base")
            stage("Load CogVideoX I2V, fp32", lambda: refusal(server, prompt), lambda: server.process.pid)


if __name__ == "__main__":
    main()
