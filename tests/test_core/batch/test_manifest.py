"""The manifest: what it says is done is there, whoever was killed meanwhile."""

from __future__ import annotations

import json

import pytest

from flexiact_core.batch.jobs import Job
from flexiact_core.batch.manifest import FILE, Manifest
from flexiact_core.errors import FileError

JOBS = [Job(line, "act_vae", word="walk", seed=line) for line in range(2, 5)]


def test_what_was_saved_is_done_for_whoever_comes_next(tmp_path):
    first = Manifest(tmp_path / "out")
    path = first.save(JOBS[0], b"content", 1.5, "base")
    first.note_failure(JOBS[1], "no room")
    again = Manifest(tmp_path / "out")
    assert path.read_bytes() == b"content"
    assert again.done == {
        JOBS[0].key: {"key": JOBS[0].key, "line": 2, "file": path.name, "seconds": 1.5, "made_with": "base"}
    }


def test_a_file_that_is_gone_is_not_done(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.save(JOBS[0], b"content", 1.0, "base").unlink()
    assert manifest.done == {}


def test_a_job_that_failed_and_then_worked_is_done(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.note_failure(JOBS[0], "no room")
    manifest.save(JOBS[0], b"content", 1.0, "base")
    assert list(Manifest(tmp_path).done) == [JOBS[0].key]


def test_a_line_that_was_cut_off_counts_as_not_written(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.save(JOBS[0], b"content", 1.0, "base")
    manifest.save(JOBS[1], b"content", 1.0, "base")
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-9])
    torn = Manifest(tmp_path)
    assert list(torn.done) == [JOBS[0].key]
    torn.save(JOBS[2], b"content", 1.0, "base")
    lines = (tmp_path / FILE).read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines] == [2, 4]


def test_another_file_of_that_name_is_refused(tmp_path):
    (tmp_path / FILE).write_text('{"key": 1}\nhello\n')
    with pytest.raises(FileError, match="line 1: this is no manifest"):
        Manifest(tmp_path)


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="out"):
        Manifest(tmp_path / "file" / "out")
