"""Get Released Models, from a server on this machine that speaks the hub's protocol and misbehaves."""

from __future__ import annotations

import re
from collections import namedtuple
from pathlib import Path

import pytest
from host.hub import Hub, serve

fetching = pytest.importorskip("flexiact_pack.nodes.released_fetching", reason="needs ComfyUI: run `make test`")

from flexiact_pack.nodes.released import GetReleasedModels  # noqa: E402
from flexiact_pack.nodes.released_list import RELEASES, Release  # noqa: E402

from flexiact_core.errors import FileError  # noqa: E402

ACTIONS = "RefAdapter and actions"
DANCE, REFADAPTER = "ckpts/FAE/motion_ckpts/Dance.pt", "ckpts/refnetlora_step40000_model.pt"
CONTENT = {
    REFADAPTER: bytes(range(256)) * 900,
    DANCE: b"dance" * 50_000,
    "ckpts/FAE/reference_videos/Dance.mp4": b"clip" * 1000,
    "README.md": b"not asked for",
    "ckpts/setup.py": b"print('never fetched')",
    ".gitattributes": b"",
}
# What HF_ENDPOINT would have set, were it not read when the engine is first imported.
FILE_ADDRESS = "/{repo_id}/resolve/{revision}/{filename}"
WANTED = sorted(name for name in CONTENT if name.startswith("ckpts/") and not name.endswith(".py"))


@pytest.fixture
def hub(monkeypatch):
    """The hub, with FlexiAct's repository."""
    from huggingface_hub import constants

    with serve(Hub({"models/shiyi0408/FlexiAct": dict(CONTENT)})) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + FILE_ADDRESS)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)
        yield running


def get(download=True, models=ACTIONS) -> str:
    return GetReleasedModels.execute(models, download).result[0]


def files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


pytestmark = pytest.mark.usefixtures("running_node")


def test_nothing_is_asked_or_written_until_it_is_switched_on(hub, model_folders):
    report = get(download=False)
    assert hub.asked == [] and files(model_folders) == []
    assert "shiyi0408/FlexiAct to models/flexiact: nothing is there yet" in report
    assert "https://huggingface.co/shiyi0408/FlexiAct" in report
    (download,) = [item for item in GetReleasedModels.define_schema().inputs if item.id == "download"]
    assert download.default is False


def test_the_released_files_lie_where_the_lists_find_them_and_nothing_else_does(hub, model_folders):
    from flexiact_pack.nodes.flexiact import FILES
    from flexiact_pack.nodes.host.folders import find_files

    report = get()
    assert files(model_folders / "flexiact") == WANTED
    for name in WANTED:
        assert (model_folders / "flexiact" / name).read_bytes() == CONTENT[name]
    assert sorted(find_files(FILES)) == [DANCE, REFADAPTER]
    assert report.startswith("3 files fetched, 0.0 GB; 0 were there already.")


def test_what_is_there_is_kept_and_not_asked_for(hub, model_folders):
    own = model_folders / "flexiact" / DANCE
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    report = get()
    assert own.read_bytes() == b"mine" and f"Kept, though their sizes are not the released ones: {DANCE}" in report
    assert [path for path, _ in hub.asked if path.endswith("Dance.pt")] == []
    hub.asked.clear()
    assert get().startswith("Everything is there; 3 were there already.")
    assert [path for path, _ in hub.asked if "/resolve/" in path] == []


def test_an_answer_that_is_cut_goes_on_where_it_stopped(hub, model_folders):
    hub.cut.add(DANCE)
    get()
    assert (model_folders / "flexiact" / DANCE).read_bytes() == CONTENT[DANCE]
    ranges = [asked for path, asked in hub.asked if path.endswith("Dance.pt")]
    # Whole pieces of what came before the cut are kept.
    assert ranges == ["", f"bytes={len(CONTENT[DANCE]) // 2 // (1 << 14) * (1 << 14)}-"]


def test_a_later_run_goes_on_where_cancel_stopped_an_earlier_one(hub, model_folders, monkeypatch):
    import comfy.model_management as memory

    written = []

    def cancel_after_a_while():
        written.append(1)
        if len(written) == 4:
            raise memory.InterruptProcessingException

    monkeypatch.setattr(fetching.progress, "stop_if_cancelled", cancel_after_a_while)
    with pytest.raises(memory.InterruptProcessingException):
        get()
    assert files(model_folders / "flexiact") == [f"{DANCE}.incomplete"]
    done = (model_folders / "flexiact" / f"{DANCE}.incomplete").stat().st_size
    assert 0 < done < len(CONTENT[DANCE])
    assert "a download is not finished" in get(download=False)
    hub.asked.clear()
    get()
    assert (f"/shiyi0408/FlexiAct/resolve/{'0123456789abcdef' * 2}01234567/{DANCE}", f"bytes={done}-") in hub.asked
    assert files(model_folders / "flexiact") == WANTED
    assert (model_folders / "flexiact" / DANCE).read_bytes() == CONTENT[DANCE]


def test_a_size_that_was_announced_wrongly_is_said_and_the_next_run_fetches_the_file(hub, model_folders):
    hub.lie.add(DANCE)
    with pytest.raises(FileError, match=r"Dance\.pt: 250,000 bytes came, 250,007 were announced\. .* Run this node"):
        get()
    assert [name for name in files(model_folders) if "Dance.pt" in name] == []
    get()
    assert (model_folders / "flexiact" / DANCE).read_bytes() == CONTENT[DANCE]


def test_other_bytes_of_the_right_size_are_never_taken_for_the_released_ones(hub, model_folders):
    hub.change.add(REFADAPTER)
    with pytest.raises(FileError, match="what came is not what was released"):
        get()
    assert [name for name in files(model_folders) if "refnetlora" in name] == []


def test_a_full_disk_is_said_before_anything_is_fetched(hub, model_folders, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage(0, 0, 1_000_100_000))
    with pytest.raises(FileError, match=r"0\.0 GB are to come, and the disk of \w+ has room for 0\.0 GB"):
        get()
    assert [path for path, _ in hub.asked if "/resolve/" in path] == []


def test_a_hub_that_cannot_be_reached_is_a_sentence_without_this_machines_places(hub, model_folders, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FileError, match=r"^https://huggingface.co/shiyi0408/FlexiAct: could not be fetched") as caught:
        get()
    assert str(model_folders) not in str(caught.value)


def test_without_the_engine_the_sentence_names_it(model_folders, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileError, match="pip install huggingface_hub"):
        get()


@pytest.mark.parametrize(
    "name", ["../x.pt", "/x.pt", "a/../../x.pt", "a\\..\\x.pt", "c:x.pt", ".git/x.pt", "x.py", "x.exe"]
)
def test_a_name_that_leads_elsewhere_or_starts_a_program_is_not_fetched(name):
    (release,) = RELEASES[ACTIONS]
    anything = Release(release.repository, release.kind, "")
    assert anything.wanted([name, "good/file.pt"]) == ["good/file.pt"]


def test_every_address_stands_in_the_docs_with_the_page_it_is_from():
    docs = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for releases in RELEASES.values():
        for release in releases:
            (line,) = [line for line in docs.splitlines() if f"]({release.page})" in line]
            assert f"`{release.place}`" in line
            assert len(re.findall(r"\]\(https://", line)) >= 2, "the page that the address is from"
