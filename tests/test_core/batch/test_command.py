"""The command: the same files alone, on Ray with a worker killed, and after the command was killed; and tables."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from small_batch import QUICK, write_benchmark, write_jobs, write_list
from small_clip import write_small_clip

from flexiact_core.batch import __main__ as batch
from flexiact_core.batch import queue
from flexiact_core.batch.manifest import FILE, Manifest

ROOT = Path(__file__).parents[3]
NUM_JOBS = 12
OPTIONS = ["--device", "cpu"]
pytestmark = pytest.mark.xdist_group("batch")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != FILE}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return write_jobs(tmp_path_factory.mktemp("jobs"), NUM_JOBS)


@pytest.fixture(scope="module")
def alone(jobs, tmp_path_factory):
    """What one process makes of the list."""
    folder = tmp_path_factory.mktemp("alone")
    assert batch.main([str(jobs), "--out", str(folder), *OPTIONS]) == 0
    return files_of(folder)


def test_each_job_makes_a_video_of_its_own(alone, tmp_path):
    from flexiact_core.video_files import read_video

    assert len(alone) == len(set(alone.values())) == NUM_JOBS
    name, content = next(iter(alone.items()))
    (tmp_path / name).write_bytes(content)
    assert read_video(tmp_path / name, 8).shape == (9, 64, 64, 3)


@pytest.mark.skipif(not queue.has_ray(), reason="needs Ray, which is not installed: pip install ray")
def test_two_workers_of_ray_one_killed_make_the_files_of_one_process(jobs, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    options = batch.parse_arguments([str(jobs), "--out", str(tmp_path / "out"), *OPTIONS])
    listed, _ = batch.read_list(options)
    manifest, pids = Manifest(options.out), tmp_path / "pids"
    pids.mkdir()
    first_maker = partial(batch.make_maker, batch.tools_of(options))

    def make_maker():
        (pids / str(os.getpid())).touch()
        return first_maker()

    keeper = batch.Keeper(manifest, "", len(listed))

    def keep(job, result):
        keeper(job, result)
        if keeper.ended == 3:
            os.kill(int(min(pids.iterdir()).name), signal.SIGKILL)

    with queue.connected(queue.HERE, 2, gpu_jobs=False) as pool:
        queue.run_on_ray(listed, make_maker, keep, pool)
    assert keeper.failed == 0 and len(list(pids.iterdir())) >= 2
    assert files_of(options.out) == alone


def test_the_command_goes_on_after_it_was_killed(jobs, alone, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [str(jobs), "--out", str(out), *OPTIONS]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, "-m", "flexiact_core.batch", *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        while len(list(out.glob("*.mp4"))) < 2:
            assert run.poll() is None
            time.sleep(0.05)
    finally:
        run.kill()
        run.wait()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    kept = [record["file"] for record in Manifest(out).records]
    assert batch.main(arguments) == 0
    assert files_of(out) == alone
    assert f"{NUM_JOBS} jobs, {len(kept)} of them made before" in capsys.readouterr().out
    assert all((out / name).stat().st_mtime_ns == before[name] for name in kept)


def test_a_bad_row_is_reported_and_the_rest_is_made(jobs, tmp_path, capsys):
    rows = list(csv.DictReader(jobs.open(newline="")))[:1]
    bad = {**rows[0], "picture": "no.png"}
    # Known only once the base is asked.
    late = {**rows[0], "settings": "steps=2 num_frames=10"}
    words = {**dict.fromkeys(rows[0], ""), "system": "act_vae", "word": "walk", "seed": "1", "settings": ""}
    path = write_list(jobs.parent / "bad.csv", [bad, late, words])
    assert batch.main([str(path), "--out", str(tmp_path / "out"), *OPTIONS]) == 1
    said = capsys.readouterr().err
    assert "line 2: picture: no file 'no.png'" in said and "line 3: num_frames 10:" in said
    (made,) = files_of(tmp_path / "out").items()
    assert made[0].startswith("walk-1-") and json.loads(made[1])[0]["people"]


def test_a_benchmark_folder_is_made_and_measured_to_the_end(tmp_path, capsys):
    pytest.importorskip("cv2", reason="points are followed by OpenCV: pip install opencv-python-headless")
    benchmark, out = write_benchmark(tmp_path / "benchmark"), tmp_path / "out"
    clip = write_small_clip(tmp_path / "clip")
    arguments = [str(benchmark), "--out", str(out), "--settings", QUICK, "--evaluate", "--clip", str(clip), *OPTIONS]
    assert batch.main(arguments) == 0
    rows = list(csv.DictReader((out / "evaluation.csv").open(newline="")))
    assert [(row["kind"], row["action"], row["target"]) for row in rows] == [
        ("animal", "jump", "jump_0"), ("animal", "jump", "jump_1"),
        ("human", "slide", "slide_0"), ("human", "slide", "slide_1"),
    ]  # fmt: skip
    paper = ("text_similarity", "motion_fidelity", "temporal_consistency", "appearance_consistency")
    assert all(-1 <= float(row[name]) <= 1 for row in rows for name in paper)
    table = (out / "evaluation.md").read_text()
    mean = sum(float(row["motion_fidelity"]) for row in rows) / 4
    assert table.startswith("| of 4 videos | text similarity | motion fidelity |")
    assert f"| {mean:.4f} (" in table and "| animal/jump |" in table
    assert (out / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert "4 jobs, 0 of them made before" in capsys.readouterr().out


def test_an_action_without_a_file_is_named_and_the_others_are_made(tmp_path):
    from flexiact_core.batch.benchmark import benchmark_jobs

    folder = write_benchmark(tmp_path / "benchmark")
    (tmp_path / "actions").mkdir()
    (tmp_path / "actions" / "slide.pt").write_bytes(b"action")
    jobs, (bad,) = benchmark_jobs(folder, tmp_path / "actions")
    assert [job.group for job in jobs] == [("human", "slide")] * 2
    assert bad.reason.startswith("animal/jump: no file jump.safetensors")


def test_ctrl_c_keeps_what_is_made(monkeypatch, tmp_path, jobs, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "run_alone", stop)
    assert batch.main([str(jobs), "--out", str(tmp_path), *OPTIONS]) == 130
    assert "the same command goes on" in capsys.readouterr().err
