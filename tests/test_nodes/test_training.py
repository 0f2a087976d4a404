"""What every training node does around its own loop: checkpoints, samples, Cancel, saving."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from safetensors import safe_open

training = pytest.importorskip("flexiact_pack.nodes.training", reason="needs ComfyUI: run `make test`")

from flexiact_pack.nodes.flexiact import FILES  # noqa: E402
from flexiact_pack.nodes.host import memory, progress  # noqa: E402

from flexiact_core.errors import FileError, SettingError  # noqa: E402
from flexiact_core.training import Checkpoint, Course, TrainingState, descend, load_state  # noqa: E402
from flexiact_core.weight_files import write_tensors  # noqa: E402

pytestmark = pytest.mark.usefixtures("model_folders")

PLAN = training.Plan(
    name="point", steps=6, learning_rate=0.1, batch_size=2, checkpoint_every=4, resume=True, seed=7,
    gradient_checkpointing="off",
)  # fmt: skip


def fit(course: Course) -> TrainingState:
    """Moves a point towards random ones, with the core's own loop: as small as a training can be."""
    point = torch.nn.Parameter(torch.zeros(3, device=course.device))
    generator = course.generator()

    def compute_loss():
        return (point - torch.rand(course.batch_size, 3, generator=generator)).square().mean()

    return descend({"point": point}, compute_loss, generator, course)


@pytest.fixture
def patcher():
    return memory.to_patcher(torch.nn.Sequential(), torch.device("cpu"), torch.device("cpu"))


@pytest.fixture(autouse=True)
def steps(monkeypatch):
    """The steps that were reported."""
    reported = []
    monkeypatch.setattr(progress.TrainingProgress, "step", lambda self, done, loss: reported.append(done))
    return reported


def begin(identity=None, **changes):
    return training.Training(FILES, dataclasses.replace(PLAN, **changes), identity or {"base": "b"})


def cancel_at(step, monkeypatch):
    def report(self, done, loss):
        if done == step:
            raise progress.interrupt()

    monkeypatch.setattr(progress.TrainingProgress, "step", report)


def test_every_step_is_reported_and_checkpoints_are_written_when_due_and_at_the_end(patcher, steps, monkeypatch):
    run, written = begin(), []
    monkeypatch.setattr(Checkpoint, "save", lambda self, state: written.append(state.steps_done))
    state = run.run(patcher, 0, fit)
    assert steps == [1, 2, 3, 4, 5, 6] and state.steps_done == 6
    assert written == [4, 6]


@pytest.mark.parametrize("stopped_at", [1, 4, 5])
def test_a_training_in_parts_learns_what_one_at_once_does(patcher, monkeypatch, said, stopped_at):
    whole = begin(name="whole").run(patcher, 0, fit)
    with monkeypatch.context() as patch:
        cancel_at(stopped_at, patch)
        part = begin().run(patcher, 0, fit)
    assert part.steps_done == stopped_at
    assert said == [f"Training stopped at step {stopped_at} of 6; what was learned is kept."]
    again = begin()
    assert again.resumed.steps_done == stopped_at
    assert torch.equal(again.run(patcher, 0, fit).parameters["point"], whole.parameters["point"])


def test_more_steps_go_on_and_other_settings_or_no_resume_start_anew(patcher):
    begin().run(patcher, 0, fit)
    assert begin(steps=9).resumed.steps_done == 6
    assert begin(checkpoint_every=1, gradient_checkpointing="on").resumed is not None
    for changes in ({"seed": 8}, {"learning_rate": 0.2}, {"batch_size": 1}, {"resume": False}, {"name": "other"}):
        assert begin(**changes).resumed is None, changes
    assert begin({"base": "another"}).resumed is None


def test_what_fit_raises_comes_through(patcher):
    with pytest.raises(SettingError, match="no longer a number"):
        begin(learning_rate=float("inf")).run(patcher, 0, fit)


def test_samples_are_drawn_when_due_but_not_after_the_last_step_and_the_module_is_loaded_again(patcher, monkeypatch):
    drawn, loaded = [], []
    load = memory.load_to_train
    monkeypatch.setattr(memory, "load_to_train", lambda *given: loaded.append(given) or load(*given))

    def draw(state):
        drawn.append(state.steps_done)
        return torch.ones(2, 8, 8, 3)

    run = begin(steps=4)
    run.run(patcher, 55, fit, draw, sample_every=2)
    assert drawn == [2]
    assert loaded == [(patcher, 55), (patcher, 55)]
    assert run.report.sample is not None


def test_what_is_learned_is_saved_with_its_settings_under_a_name_of_its_own(patcher, said, model_folders):
    run = begin({"base": "b", "rank": 4})
    state = run.run(patcher, 0, fit)

    def write(path, metadata):
        write_tensors(state.parameters, path, {key: str(value) for key, value in metadata.items()})

    path = run.save("points", state, write)
    assert path == model_folders / "flexiact" / "points" / "point.safetensors"
    assert said == ["Saved as point.safetensors in models/flexiact/points."]
    metadata = safe_open(path, "pt").metadata()
    assert metadata | {"pack_version": ""} == {
        "base": "b", "rank": "4", "learning_rate": "0.1", "batch_size": "2", "seed": "7", "action": "point",
        "steps": "6", "training": run.digest, "pack_version": "",
    }  # fmt: skip
    assert begin({"base": "b", "rank": 4}).save("points", state, write) == path
    assert begin({"base": "c"}).save("points", state, write).name == "point_2.safetensors"


def test_the_checkpoints_name_is_what_earlier_releases_gave_it():
    """SHA-256 of the settings as JSON, keys sorted: a training that 0.2.0 left unfinished is found again."""
    run = training.Training(FILES, PLAN, {"base": "cogvideox-i2v-2x32", "clips": "c", "caption": "a bar moves"})
    import hashlib

    settings = (
        '{"base": "cogvideox-i2v-2x32", "batch_size": 2, "caption": "a bar moves", "clips": "c", '
        '"learning_rate": 0.1, "seed": 7}'
    )
    assert run.digest == hashlib.sha256(settings.encode()).hexdigest()
    assert run.checkpoint.path.name == f"point-{run.digest[:12]}.safetensors"
    assert run.checkpoint.path.parent.name == "training"


def test_a_checkpoint_says_how_far_it_is(patcher, monkeypatch):
    cancel_at(5, monkeypatch)
    run = begin()
    run.run(patcher, 0, fit)
    state, metadata = load_state(run.checkpoint.path)
    assert (state.steps_done, metadata["steps_done"], metadata["name"]) == (5, "5", "point")
    unfinished = partial(training.changes_while_unfinished, FILES, "point")
    assert unfinished(6, True) != "" and unfinished(5, True) == "" and unfinished(6, False) == ""
    # Another seed is another training.
    assert unfinished(6, True, seed=7, batch_size=2) != "" and unfinished(6, True, seed=8, batch_size=2) == ""


def save(run, state):
    def write(path, metadata):
        write_tensors(state.parameters, path, {"training": metadata["training"]})

    return run.save("points", state, write)


def test_a_training_whose_result_was_deleted_runs_again(patcher):
    run = begin()
    path = save(run, run.run(patcher, 0, fit))
    asked = partial(training.changes_while_unfinished, FILES, "point", 6, seed=7)
    assert asked(True) == "" and asked(False) == ""
    path.unlink()
    assert asked(True) != "" and asked(False) != ""
    again = begin()
    assert save(again, again.run(patcher, 0, fit)) == path
    assert asked(True) == ""


def test_fewer_steps_than_were_done_are_said(patcher, said):
    begin().run(patcher, 0, fit)
    assert said == []
    state = begin(steps=4).run(patcher, 0, fit)
    assert state.steps_done == 6
    assert len(said) == 1 and said[0].startswith("steps 4: this training has done 6 steps before")


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_checkpoint_is_said_with_its_way_out_and_stays(patcher, content):
    run = begin()
    run.run(patcher, 0, fit)
    run.checkpoint.path.write_bytes(content)
    with pytest.raises(FileError, match="^point-.*damaged or empty. Turn resume off.*the folder training"):
        begin()
    assert run.checkpoint.path.read_bytes() == content
    assert begin(resume=False).run(patcher, 0, fit).steps_done == 6


@pytest.mark.parametrize("place", ["training", "points"])
def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(patcher, model_folders, place):
    (model_folders / "flexiact" / place).write_text("a file where the folder would be")
    run = training.Training(FILES, PLAN, {"base": "b"}, "points")
    with pytest.raises(FileError, match=f"^{place}: nothing can be saved"):
        run.run(patcher, 0, lambda _: pytest.fail("a step was made"))


def test_half_an_emoji_in_a_name_is_no_obstacle(patcher):
    run = begin(name="jump \ud83d")
    assert save(run, run.run(patcher, 0, fit)).name == "jump _.safetensors"


def test_what_is_saved_beside_a_result_has_its_name_and_is_its_own(patcher, model_folders):
    def saved():
        run = begin()
        state = run.run(patcher, 0, fit)
        write = lambda path, metadata: write_tensors(state.parameters, path, {"training": metadata["training"]})  # noqa: E731
        return run.save("points", state, write, {".mp4": lambda path: path.write_bytes(b"clip")}).name

    assert [saved(), saved()] == ["point.safetensors"] * 2
    (model_folders / "flexiact" / "points" / "point.mp4").write_bytes(b"the user's own")
    assert saved() == "point_2.safetensors"
    assert (model_folders / "flexiact" / "points" / "point.mp4").read_bytes() == b"the user's own"


def test_a_preview_that_cannot_be_written_is_said_and_stops_nothing(tmp_path, said):
    frames = torch.rand(4, 16, 16, 3)
    training.save_preview(tmp_path / "ok.mp4", frames, 8)
    assert (tmp_path / "ok.mp4").is_file() and said == []
    (tmp_path / "file").write_text("no folder")
    training.save_preview(tmp_path / "file" / "no.mp4", frames, 8)
    assert len(said) == 1 and "no.mp4" in said[0]


def test_inputs_of_a_training_are_the_fields_of_its_plan():
    """So that a node can take them together, whatever its own inputs are."""
    own = {"name", "steps", "learning_rate", "batch_size"}
    shared = {item.id for item in training.training_inputs(FILES)}
    assert own | shared == {field.name for field in dataclasses.fields(training.Plan)}
    few = [item.id for item in training.training_inputs(FILES, gradient_checkpointing=False)]
    assert few == ["checkpoint_every", "resume", "seed"]


def test_lazy_inputs_that_are_not_there_yet_are_asked_for():
    assert training.not_computed({"model": None, "name": "x", "fae": None, "zero": 0}) == ["model", "fae"]


def test_a_preview_that_cannot_be_saved_is_said_and_ends_nothing(tmp_path, said):
    (tmp_path / "kick.mp4").mkdir()
    training.save_preview(tmp_path / "kick.mp4", torch.zeros(2, 16, 16, 3), 8)
    assert [line for line in said if "kick.mp4: could not be saved" in line]
