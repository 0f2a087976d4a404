"""The queue, alone and on Ray: every job once, whatever is killed; a job that fails ends no other."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from flexiact_core.batch import queue
from flexiact_core.batch.jobs import Job
from flexiact_core.batch.manifest import Manifest
from flexiact_core.errors import SettingError

JOBS = [Job(line, "act_vae", word="walk", seed=line) for line in range(40)]
needs_ray = pytest.mark.skipif(not queue.has_ray(), reason="needs Ray, which is not installed: pip install ray")


def make_failing():
    def make(job):
        if job.seed == 1:
            raise SettingError("seed: no.")
        if job.seed == 2:
            raise RuntimeError("out of memory\nand 40 lines more")
        return str(job.seed).encode()

    return make


def test_a_job_that_fails_is_a_sentence_and_ends_no_other():
    ended = []
    queue.run_alone(JOBS[:4], make_failing, lambda job, result: ended.append((job.seed, result.content, result.error)))
    assert ended == [
        (0, b"0", ""), (1, b"", "seed: no."), (2, b"", "RuntimeError: out of memory"), (3, b"3", "")
    ]  # fmt: skip


def test_a_maker_is_made_once_and_not_for_nothing():
    made = []
    queue.run_alone([], lambda: made.append(1), None)
    queue.run_alone(JOBS[:3], lambda: made.append(1) or (lambda job: b""), lambda *_: None)
    assert made == [1]


def test_without_ray_the_way_out_is_said(monkeypatch):
    monkeypatch.setattr(queue, "has_ray", lambda: False)
    with pytest.raises(SettingError, match="pip install ray"):
        with queue.connected("auto", 1):
            pass


@needs_ray
@pytest.mark.xdist_group("batch")
def test_killed_workers_jobs_run_again_and_nothing_is_made_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    manifest, order = Manifest(tmp_path), random.Random(0)
    kills = set(order.sample(range(2, 30), 2))

    def make_telling():
        # Inside, so that it travels to the workers with its code.
        def make(job):
            if job.seed == 7:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.02)
            return f"{job.seed} {os.getpid()}".encode()

        return make

    failed = []

    def keep(job, result):
        if result.error:
            failed.append((job.seed, result.error))
            return
        manifest.save(job, result.content, result.seconds, "")
        if len(manifest.records) in kills:
            os.kill(int(result.content.split()[1]), signal.SIGKILL)

    with queue.connected(queue.HERE, 2, gpu_jobs=False) as pool:
        queue.run_on_ray(JOBS, make_telling, keep, pool)
    # One job kills every worker that takes it.
    ((seed, reason),) = failed
    assert seed == 7 and "its worker was killed 4 times" in reason
    others = [job.key for job in JOBS if job.seed != 7]
    assert sorted(record["key"] for record in manifest.records) == sorted(others)
    assert sorted(file.name for file in tmp_path.glob("walk*")) == sorted(
        job.file_name for job in JOBS if job.seed != 7
    )  # fmt: skip
    for job in JOBS:
        if job.seed != 7:
            assert (tmp_path / job.file_name).read_bytes().split()[0] == str(job.seed).encode()
