"""Lists of jobs: what a row says, what it makes a job, and what is wrong with it, by its line."""

from __future__ import annotations

import pytest
from small_batch import write_list

from flexiact_core.batch.jobs import read_jobs, read_settings
from flexiact_core.errors import FileError, SettingError

GOOD = {"system": "flexiact", "picture": "a.png", "action": "jump.safetensors", "prompt": "a, b", "seed": "3"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "jump.safetensors").write_bytes(b"action")
    (tmp_path / "walk.json").write_text("{}")
    return tmp_path


def jobs_of(folder, *rows, **options):
    return read_jobs(write_list(folder / "jobs.csv", list(rows)), **options)


def test_a_row_is_a_job_with_its_line_and_its_settings(folder):
    (job,), bad = jobs_of(folder, GOOD | {"settings": "steps=4 cfg=1.5 scheduler=DDIM"})
    assert bad == [] and job.line == 2
    assert (job.system, job.picture.name, job.action.name, job.prompt, job.seed) == (
        "flexiact", "a.png", "jump.safetensors", "a, b", 3,
    )  # fmt: skip
    assert job.settings == {"steps": 4, "cfg": 1.5, "scheduler": "DDIM"}
    assert job.file_name == f"a-jump-3-{job.key}.mp4"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system": "other"}, "choose one of flexiact, dynamictrl, act_vae"),
        ({"picture": ""}, "picture: flexiact needs one"),
        ({"picture": "b.png"}, "picture: no file 'b.png'"),
        ({"action": "fly"}, "action: no file 'fly'"),
        ({"seed": "-1"}, "seed '-1': a whole number"),
        ({"seed": "1.5"}, "seed '1.5': a whole number"),
        ({"settings": "stepz=3"}, "'stepz' is none of flexiact"),
        ({"settings": "steps=many"}, "steps=many is no number"),
        ({"system": "dynamictrl", "word": "walk", "pose": "walk.json"}, "pose or word: dynamictrl needs one"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_the_others_are_jobs(folder, change, said):
    jobs, (bad,) = jobs_of(folder, GOOD, {**GOOD, "seed": "4", **change}, GOOD | {"seed": "5"})
    assert [job.line for job in jobs] == [2, 4]
    assert bad.line == 3 and said in bad.reason


def test_a_row_that_makes_the_same_is_told(folder):
    jobs, (bad,) = jobs_of(folder, GOOD, GOOD)
    assert len(jobs) == 1 and bad.line == 3 and "the same as line 2" in bad.reason


def test_an_action_is_found_by_its_name_under_a_folder(folder):
    (folder / "kept" / "deep").mkdir(parents=True)
    (folder / "kept" / "deep" / "hop.pt").write_bytes(b"hop")
    (job,), bad = jobs_of(folder, GOOD | {"action": "hop"}, actions=folder / "kept")
    assert bad == [] and job.action.name == "hop.pt"


def test_a_key_depends_on_what_is_made_and_not_on_where_it_lies(folder, tmp_path_factory):
    (job,), _ = jobs_of(folder, GOOD)
    other = tmp_path_factory.mktemp("other")
    for name in ("a.png", "jump.safetensors"):
        (other / name).write_bytes((folder / name).read_bytes())
    (moved,), _ = jobs_of(other, GOOD)
    assert moved.key == job.key
    (other / "a.png").write_bytes(b"another picture")
    keys = {jobs_of(other, GOOD | change)[0][0].key for change in ({}, {"seed": "4"}, {"settings": "steps=3"})}
    assert job.key not in keys and len(keys) == 3


@pytest.mark.parametrize("head", ["system,size", "picture,action", "system,system"])
def test_a_list_with_other_columns_is_refused(folder, head):
    (folder / "jobs.csv").write_text(head + "\nflexiact,1\n")
    with pytest.raises(FileError, match="line 1: .*Columns are system, picture"):
        read_jobs(folder / "jobs.csv")


def test_an_empty_list_says_what_it_should_hold(folder):
    (folder / "jobs.csv").write_text("\n")
    with pytest.raises(FileError, match="the list is empty"):
        read_jobs(folder / "jobs.csv")


def test_settings_are_those_of_the_system():
    assert read_settings("act_vae", "temperature=0") == {"temperature": 0.0}
    with pytest.raises(SettingError, match="There are steps, temperature"):
        read_settings("act_vae", "cfg=6")
