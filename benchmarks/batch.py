"""The queue of flexiact_core.batch, with jobs that sleep: python -m benchmarks.batch

1 and 2 workers of Ray, what a job costs beside its own time, and what is left when workers are killed at random.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from flexiact_core.batch.jobs import Job
from flexiact_core.batch.manifest import Manifest
from flexiact_core.batch.queue import HERE, connected, run_alone, run_on_ray


def make_sleeping(seconds: float):
    """A function that makes makers: each job sleeps, and gives its seed and its process."""

    def make_maker():
        def make(job: Job) -> bytes:
            time.sleep(seconds)
            return f"{job.seed} {os.getpid()}".encode()

        return make

    return make_maker


def measure(count: int, seconds: float, workers: int, kills: int) -> str:
    """A row of the table: a run of the queue with its manifest, from the first job to the last."""
    jobs = [Job(line, "act_vae", word="walk", seed=line) for line in range(count)]
    for job in jobs:
        job.key  # noqa: B018 - worked out beforehand, as a list's are
    moments = set(random.Random(0).sample(range(count // 10, count * 9 // 10), kills))
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        manifest = Manifest(Path(folder))

        def keep(job: Job, result) -> None:
            assert not result.error, result.error
            manifest.save(job, result.content, result.seconds, "")
            ends.append(time.monotonic())
            if len(ends) in moments:
                os.kill(int(result.content.split()[1]), signal.SIGKILL)

        if workers:
            with connected(HERE, workers, gpu_jobs=False) as pool:
                run_on_ray(jobs, make_sleeping(seconds), keep, pool)
        else:
            run_alone(jobs, make_sleeping(seconds), keep)
        made = [record["key"] for record in Manifest(Path(folder)).records]
        files = len(list(Path(folder).glob("walk*")))
    # From the first end on: workers start once, however many jobs there are.
    taken = ends[-1] - ends[0]
    beside = 1000 * (taken * max(workers, 1) / (count - 1) - seconds)
    longest = max(later - earlier for earlier, later in zip(ends, ends[1:], strict=False))
    twice = len(made) - len(set(made))
    return (
        f"| {workers or 'none'} | {count} | {kills} | {taken:.1f} s | {beside:.1f} ms | {longest:.1f} s | "
        f"{files} files, {len(set(made))} in the manifest, {twice} twice |"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.02)
    options = parser.parse_args()
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):
        os.environ.setdefault(name, "0")
    print("| workers | jobs | killed | first to last | a job beside its own time | longest wait | made |")
    print("|---|---|---|---|---|---|---|")
    for workers, kills in ((0, 0), (1, 0), (2, 0), (2, 3)):
        print(measure(options.count, options.seconds, workers, kills), flush=True)


if __name__ == "__main__":
    main()
