"""Makes many videos from a list: python -m flexiact_core.batch jobs.csv --out FOLDER

The same command goes on where it was stopped. docs/scale.md says what a list holds, and how it runs on many machines.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..command_line import DTYPES, device_here
from ..digests import content_digest
from ..errors import FlexiActError, SettingError
from ..file_lists import walk_files
from ..spans import in_words
from ..world import shipped
from .benchmark import benchmark_jobs
from .jobs import BadRow, Job, read_jobs, read_settings
from .maker import Tools, make_maker
from .manifest import Manifest
from .queue import Result, connected, run_alone, run_on_ray

STOPPED = 130  # as shells say of a program that Ctrl-C ended


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The settings on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flexiact_core.batch",
        description="Makes a video for each row of a list, and goes on where it was stopped. What a list holds, and "
        "how it runs on many machines, is in docs/scale.md.",
    )  # fmt: skip
    parser.add_argument("jobs", type=Path, help="list that ends in .csv, or the authors' benchmark folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the videos and the manifest")
    parser.add_argument("--base", type=Path, help="diffusers folder or file; the built-in small world by default")
    parser.add_argument("--components", type=Path, help="diffusers folder with the other parts of a single-file base")
    parser.add_argument("--actions", type=Path, help="folder that actions are looked for in, if not beside the list")
    parser.add_argument("--refadapter", type=Path, help="RefAdapter, applied at 0.7 unless a row says otherwise")
    parser.add_argument("--act-vae", type=Path, help="ACT-VAE for rows with a word; the built-in one by default")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on Ray: auto, local, or a cluster's address")
    parser.add_argument("--workers", type=int, help="Ray's workers; one for each GPU by default")
    parser.add_argument("--memory", type=float, metavar="GB", help="what a worker may take of its card; all by default")
    parser.add_argument("--device", help="cpu, cuda or cuda:1; what is there by default")
    parser.add_argument("--dtype", choices=DTYPES, help="what is computed in; bfloat16 on a card, float32 without")
    parser.add_argument("--threads", type=int, default=1, help="of a worker without a card; other numbers, other bytes")
    parser.add_argument("--settings", default="", help="of videos of a benchmark folder: 'steps=25 cfg=6'")
    parser.add_argument("--seed", type=int, default=0, help="of all videos of a benchmark folder")
    parser.add_argument("--evaluate", action="store_true", help="also measure what was made, into tables and a plot")
    parser.add_argument("--clip", type=Path, help="folder of a CLIP in transformers' layout, for --evaluate")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a batch; the exit status: 0 if all was made, 1 if something was not, 130 after Ctrl-C."""
    options = parse_arguments(arguments)
    # Ray would send word of its use, and start workers that let every other program go first.
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_worker_niceness", "0")):
        os.environ.setdefault(name, value)
    try:
        return run(options)
    except FlexiActError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What is made is kept; the same command goes on.", file=sys.stderr)
        return STOPPED


def run(options: argparse.Namespace) -> int:
    """As main(), with errors raised."""
    jobs, bad = read_list(options)
    tools = tools_of(options)
    tools.check()
    for row in bad:
        print(f"line {row.line}: {row.reason}", file=sys.stderr)
    manifest, made_with = Manifest(options.out), fingerprint(tools)
    done = manifest.done
    open_jobs = [job for job in jobs if done.get(job.key, {}).get("made_with") != made_with]
    print(f"{len(jobs)} jobs, {len(jobs) - len(open_jobs)} of them made before", flush=True)
    keep = Keeper(manifest, made_with, len(open_jobs))
    work = open_jobs, partial(make_maker, tools), keep
    if not options.ray:
        run_alone(*work)
    elif open_jobs:
        with connected(options.ray, options.workers, options.device != "cpu") as pool:
            run_on_ray(*work, pool)
    if options.evaluate:
        evaluate(options, jobs, manifest)
    print(f"{len(manifest.done)} files in {options.out}", flush=True)
    return 1 if bad or keep.failed else 0


class Keeper:
    """Takes results: writes them, and says how far the batch is."""

    def __init__(self, manifest: Manifest, made_with: str, total: int):
        self.manifest, self.made_with, self.total = manifest, made_with, total
        self.ended, self.failed, self.started = 0, 0, time.monotonic()

    def __call__(self, job: Job, result: Result) -> None:
        """Keeps the result of a job."""
        self.ended += 1
        taken = time.monotonic() - self.started
        left = in_words(taken / self.ended * (self.total - self.ended))
        if result.error:
            self.failed += 1
            self.manifest.note_failure(job, result.error)
            print(f"line {job.line}: {result.error}", file=sys.stderr, flush=True)
            return
        path = self.manifest.save(job, result.content, result.seconds, self.made_with)
        print(f"{self.ended}/{self.total}  {path.name}  {result.seconds:.1f} s  {left} left", flush=True)


def read_list(options: argparse.Namespace) -> tuple[list[Job], list[BadRow]]:
    """The jobs of a list or of a benchmark folder, and what is none. Raises FileError if nothing can be read."""
    actions = options.actions or shipped.fae_path("jump").parent
    if not options.jobs.is_dir():
        return read_jobs(options.jobs, actions)
    return benchmark_jobs(options.jobs, actions, options.seed, read_settings("flexiact", options.settings))


def tools_of(options: argparse.Namespace) -> Tools:
    """What all jobs are made with. Raises SettingError if a number cannot be used."""
    if options.memory is not None and not options.memory > 0:
        raise SettingError(f"--memory {options.memory:g}: gigabytes above 0 are needed.")
    if options.threads < 1 or (options.workers is not None and options.workers < 1):
        raise SettingError("--threads and --workers: 1 or more are needed.")
    device = options.device or device_here()
    base = options.base or shipped.base_folder()
    act_vae = options.act_vae or shipped.WEIGHTS / "act_vae" / "figures.safetensors"
    dtype = options.dtype or ("float32" if device == "cpu" else "bfloat16")
    return Tools(
        base, options.components, options.refadapter, act_vae, device, dtype, options.memory, options.threads
    )  # fmt: skip


def fingerprint(tools: Tools) -> str:
    """A name for what the files of a batch are made with: other weights, adapters, or number format, another name."""
    contents = hashlib.sha256(tools.dtype.encode())
    for path in filter(None, (tools.base, tools.components, tools.refadapter, tools.act_vae)):
        files = [file for _, _, files in walk_files(path) for file in files] if path.is_dir() else [path]
        for file in files:
            contents.update(f"{file.name} {content_digest(file)}\n".encode())
    return contents.hexdigest()[:16]


def evaluate(options: argparse.Namespace, jobs: Sequence[Job], manifest: Manifest) -> None:
    """Measures the videos that were made, and writes the tables."""
    import torch

    from ..cogvideox.family import family_of
    from ..cogvideox.loading import transformer_config
    from ..metrics.clip import load_clip
    from .evaluate import measure_jobs, write_tables

    done = manifest.done
    made = [job for job in jobs if job.key in done and job.system != "act_vae"]
    tools = tools_of(options)
    clip = None if options.clip is None else load_clip(options.clip, torch.device(tools.device))
    fps = family_of(transformer_config(tools.base, tools.components)).fps
    said = set()

    def on_job(number: int, missing: str) -> None:
        print(f"measured {number + 1}/{len(made)}", flush=True)
        if missing and missing not in said:
            said.add(missing)
            print(f"not measured: {missing}", flush=True)

    records = measure_jobs(made, lambda job: manifest.folder / done[job.key]["file"], fps, clip, on_job)
    for path in write_tables(records, options.out):
        print(path, flush=True)


if __name__ == "__main__":
    sys.exit(main())
