"""Where files lie, and what is said where they do not."""

from __future__ import annotations

import os

import pytest
from small_models import make_fae, make_refadapter

folders = pytest.importorskip("flexiact_pack.nodes.host.folders", reason="needs ComfyUI: run `make test`")

from flexiact_pack import nodes  # noqa: E402
from flexiact_pack.nodes.flexiact import FAE_WORDS, FILES, REFADAPTER_WORDS  # noqa: E402

from flexiact_core.errors import FileError, SettingError  # noqa: E402
from flexiact_core.weight_files import write_tensors  # noqa: E402

KIND = folders.ModelFolder("trial", "fetch to {folder}", "the trial files")


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """Two folders of KIND, the first before the second."""
    import folder_paths

    roots = [tmp_path / "first", tmp_path / "second"]
    for root in roots:
        root.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, KIND.name, ([str(root) for root in roots], set()))
    return roots


def test_a_kind_is_known_by_its_name_and_what_ships_comes_last(tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae", ([str(tmp_path / "own")], {".pt"}))
    (tmp_path / "shipped" / "trial").mkdir(parents=True)
    folders.register_folders((KIND, folders.ModelFolder("vae")), tmp_path / "shipped")
    try:
        assert KIND.roots() == [tmp_path / "models" / "trial", tmp_path / "shipped" / "trial"]
        # ComfyUI has a folder of this name already: it stays first, and its endings stay.
        assert folder_paths.get_folder_paths("vae") == [str(tmp_path / "own"), str(tmp_path / "models" / "vae")]
        assert folder_paths.folder_names_and_paths["vae"][1] == {".pt"}
    finally:
        folder_paths.folder_names_and_paths.pop("trial")


def test_shipped_pictures_lie_in_the_input_folder_and_what_a_user_has_there_stays(tmp_path, monkeypatch):
    shipped, inputs = tmp_path / "shipped", tmp_path / "input"
    shipped.mkdir(), inputs.mkdir()
    for name in ("cat.jpg", "dog.jpg"):
        (shipped / name).write_bytes(name.encode())
    (inputs / "dog.jpg").write_bytes(b"mine")
    monkeypatch.setattr(folders.folder_paths, "get_input_directory", lambda: str(inputs))
    folders.put_inputs(shipped)
    assert [(inputs / name).read_bytes() for name in ("cat.jpg", "dog.jpg")] == [b"cat.jpg", b"mine"]
    monkeypatch.setattr(folders.folder_paths, "get_input_directory", lambda: str(tmp_path / "gone"))
    folders.put_inputs(shipped)


def test_the_small_world_is_found_after_what_the_user_has():
    nodes.register_folders()
    shipped = [kind for kind in nodes.MODEL_FOLDERS if (nodes.SHIPPED / kind.name).is_dir()]
    assert len(shipped) >= 2 and all(kind.roots()[-1] == nodes.SHIPPED / kind.name for kind in shipped)
    assert "small world (built in)" in nodes.cogvideox.find_bases()


def test_files_are_told_apart_by_what_is_in_them_wherever_they_lie(model_folders):
    root = model_folders / "flexiact"
    make_fae(root / "a_lora.safetensors")
    make_fae(root / "deep" / "down" / "fae.pt")
    make_fae(root / ".hidden.safetensors")
    make_refadapter(root / "motion.safetensors")
    make_refadapter(root / "deep" / "adapter.pt")
    (root / "notes.txt").write_text("motion_inversion_tokens")
    assert list(folders.find_files(FILES, FAE_WORDS)) == ["a_lora.safetensors", "deep/down/fae.pt"]
    assert list(folders.find_files(FILES, REFADAPTER_WORDS)) == ["deep/adapter.pt", "motion.safetensors"]
    assert len(folders.find_files(FILES)) == 4


def test_the_first_folder_wins_where_two_hold_a_name(roots):
    for root in roots:
        (root / "same.safetensors").write_bytes(b"")
    (roots[1] / "other.safetensors").write_bytes(b"")
    assert folders.find_files(KIND) == {
        "other.safetensors": roots[1] / "other.safetensors", "same.safetensors": roots[0] / "same.safetensors",
    }  # fmt: skip


@pytest.mark.usefixtures("roots")
@pytest.mark.parametrize("name", ["gone.safetensors", None, folders.NONE_FOUND])
def test_what_is_not_there_is_a_sentence_with_the_folder_and_the_way_out_and_never_none(name):
    sentence = (
        f"'{name}' is not in models/trial. Choose another from the list, or let Get Released Models fetch the trial "
        "files, or do it by hand: fetch to models/trial"
    )
    with pytest.raises(FileError) as raised:
        folders.weights_path(KIND, name)
    assert str(raised.value) == sentence
    # Over a link the name is not known yet.
    assert folders.check_weights(KIND, name) == (True if name is None else sentence)


@pytest.mark.usefixtures("roots")
def test_where_nothing_is_released_the_sentence_asks_for_the_file_itself():
    answer = folders.check_weights(folders.ModelFolder(KIND.name), "gone")
    assert answer == "'gone' is not in models/trial. Choose another from the list, or put it there."


@pytest.mark.parametrize(
    "run",
    [
        lambda name, model: nodes.flexiact.LoadFAEEmbedding.execute(name, 1.0),
        lambda name, model: nodes.flexiact.ApplyRefAdapter.execute(model, name, 0.7),
        lambda name, model: nodes.cogvideox.LoadCogVideoXI2V.execute(name, "auto", "auto"),
        lambda name, model: nodes.cogvideox.LoadCogVideoXI2V.execute("small", name, "auto"),
        lambda name, model: nodes.LoadReleasedAction.execute(model, name, 0),
    ],
    ids=["LoadFAEEmbedding", "ApplyRefAdapter", "LoadCogVideoXI2V", "its components", "LoadReleasedAction"],
)
@pytest.mark.usefixtures("copied_base")
def test_a_linked_or_vanished_name_is_a_sentence_in_every_node(small_model, run):
    with pytest.raises(FileError, match="^'gone' is not in .*(hf download)"):
        run("gone", small_model)
    with pytest.raises(SettingError, match="nothing came in"):
        run(None, small_model)


def test_a_result_never_replaces_that_of_another_training(roots):
    first = folders.result_path(KIND, "fae", "jump: \N{LATIN SMALL LETTER U WITH DIAERESIS}/..", "a" * 64)
    assert first == roots[0] / "fae" / "jump_ \N{LATIN SMALL LETTER U WITH DIAERESIS}_.safetensors"
    write_tensors({}, first, {"training": "a" * 64})
    assert folders.result_path(KIND, "fae", "jump: \N{LATIN SMALL LETTER U WITH DIAERESIS}/..", "a" * 64) == first
    other = folders.result_path(KIND, "fae", "jump: \N{LATIN SMALL LETTER U WITH DIAERESIS}/..", "b" * 64)
    assert other.name == first.stem + "_2.safetensors"
    assert folders.result_path(KIND, "fae", " . ", "a").name == "action.safetensors"


def test_a_place_is_shown_without_where_its_model_folder_lies(roots, tmp_path):
    assert folders.shown(roots[0] / "fae" / "a.pt") == "models/trial/fae/a.pt"
    assert folders.shown(tmp_path / "elsewhere" / "a.pt") == "a.pt"


def test_settings_have_one_name_whatever_their_order_and_another_for_each_change():
    assert folders.digest({"a": 1, "b": 2.5}) == folders.digest({"b": 2.5, "a": 1})
    assert folders.digest({"a": 1}) != folders.digest({"a": 2})


@pytest.fixture
def input_folder(tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    return tmp_path / "input"


def test_a_file_to_read_lies_in_the_input_folder_or_in_a_model_folder(input_folder, roots):
    assert folders.input_file(" deep/clips.csv ") == (input_folder / "deep" / "clips.csv", input_folder)
    assert folders.input_file(str(roots[1] / "clips.csv")) == (roots[1] / "clips.csv", roots[1])
    assert folders.input_path("a/../clips.csv") == input_folder / "clips.csv"


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.csv", "a/../../secret.csv", "/proc/self/environ", "a\0b", "../input2/x.csv"]
)
@pytest.mark.usefixtures("roots", "input_folder")
def test_no_other_place_can_be_named(name, tmp_path):
    with pytest.raises(FileError, match="only files in ComfyUI's input folder and in model folders") as refused:
        folders.input_path(name)
    assert str(tmp_path) not in str(refused.value)


def test_the_state_of_files_changes_with_them(tmp_path):
    (tmp_path / "base" / "deep").mkdir(parents=True)
    file, deep = tmp_path / "a.safetensors", tmp_path / "base" / "deep" / "b.json"
    states = [folders.files_state(file, tmp_path / "base", None)]
    for change in (
        lambda: file.write_bytes(b"one"),
        lambda: file.write_bytes(b"three"),
        lambda: os.utime(file, ns=(1, 1)),
        lambda: deep.write_bytes(b"{}"),
        lambda: deep.unlink(),
        lambda: file.unlink(),
    ):
        before = folders.files_state(file, tmp_path / "base", None)
        change()
        states.append(folders.files_state(file, tmp_path / "base", None))
        assert states[-1] != before
    assert states[-1] == states[0]


@pytest.mark.parametrize("name", [None, "", " ", "/etc/passwd", "gone.csv", "a\0b", "x" * 5000])
def test_the_state_of_a_named_file_never_raises(input_folder, name):
    assert isinstance(folders.input_state(name), str)
