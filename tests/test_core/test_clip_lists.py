import os
from pathlib import Path

import pytest
from videos import HEADER, make_video, write_rows

from flexiact_core.clip_lists import read_clip_list
from flexiact_core.errors import FileError


def test_a_list_without_a_header_keeps_its_first_line(tmp_path):
    make_video(tmp_path / "a.mp4", num_frames=10, fps=8)
    rows = read_clip_list(write_rows(tmp_path / "list.csv", ["a.mp4", 2, 10, 8, "", "something moves"]))
    assert [(row.start, row.duration, row.caption) for row in rows] == [(0.25, 1.0, "something moves")]


BAD_ROWS = {
    "a missing video": (["gone.mp4", 0, 10, 8, 0, "x"], "the file of its first column is not there"),
    "no path": (["", 0, 10, 8, 0, "x"], "the file of its first column is not there"),
    "a word for a number": (["a.mp4", "zero", 10, 8, 0, "x"], "must be numbers"),
    "nan": (["a.mp4", "nan", 10, 8, 0, "x"], "must be numbers"),
    "inf": (["a.mp4", 0, "inf", 8, 0, "x"], "must be numbers"),
    "no speed": (["a.mp4", 0, 10, 0, 0, "x"], "0 <= start frame < end frame and an fps above 0"),
    "a negative start": (["a.mp4", -50, 10, 8, 0, "x"], "0 <= start frame < end frame"),
    "an end before the start": (["a.mp4", 9, 2, 8, 0, "x"], "0 <= start frame < end frame"),
    "no length": (["a.mp4", 2, 2, 8, 0, "x"], "0 <= start frame < end frame"),
    "astronomic": (["a.mp4", 1e300, 1e308, 1e-300, 0, "x"], "0 <= start frame < end frame"),
    "few columns": (["a.mp4", "x"], "2 columns found"),
    "a long name": (["a" * 300 + ".mp4", 0, 10, 8, 0, "x"], "is not there"),
    "a long path": (["a/" * 3000, 0, 10, 8, 0, "x"], "is not there"),
    "a zero byte": (["a\0b", 0, 10, 8, 0, "x"], "."),
}


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_line_is_named_and_not_repeated(tmp_path, bad):
    row, message = BAD_ROWS[bad]
    make_video(tmp_path / "a.mp4", num_frames=10, fps=8)
    good = ["a.mp4", 0, 10, 8, 0, "x"]
    with pytest.raises(FileError, match=f"list.csv.*{message}") as refused:
        read_clip_list(write_rows(tmp_path / "list.csv", HEADER, good, row))
    if bad != "a zero byte":  # Python's csv may refuse it, without a line
        assert "line 3: " in str(refused.value)
    assert str(row[0] or "?") not in str(refused.value) and str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("number", ["nan", "-inf"])
def test_a_first_line_with_an_impossible_number_is_no_header(tmp_path, number):
    make_video(tmp_path / "a.mp4", num_frames=10, fps=8)
    with pytest.raises(FileError, match="line 1: .* must be numbers"):
        read_clip_list(write_rows(tmp_path / "list.csv", ["a.mp4", number, 10, 8, 0, "x"]))


def test_only_the_first_line_is_a_header(tmp_path):
    make_video(tmp_path / "a.mp4", num_frames=10, fps=8)
    with pytest.raises(FileError, match="line 2: .* must be numbers"):
        read_clip_list(write_rows(tmp_path / "list.csv", HEADER, HEADER, ["a.mp4", 0, 10, 8, 0, "x"]))


def test_a_list_without_a_clip_is_refused(tmp_path):
    with pytest.raises(FileError, match="no clip in the list"):
        read_clip_list(write_rows(tmp_path / "list.csv", HEADER))


@pytest.fixture
def outside(tmp_path):
    """A folder of lists, and beside it a video that they must not reach."""
    (tmp_path / "input" / "deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    return make_video(tmp_path / "outside" / "private.mp4", num_frames=10, fps=8)


@pytest.mark.parametrize("given_root", [False, True])
@pytest.mark.parametrize(
    "way", ["{full}", "../outside/private.mp4", "x/../../outside/private.mp4", "outside/private.mp4"]
)
def test_no_line_reaches_out_of_the_root(tmp_path, outside, way, given_root):
    listed = write_rows(tmp_path / "input" / "list.csv", [way.format(full=outside), 0, 9, 8, 0, "x"])
    said = []
    for _ in ("there", "gone"):
        with pytest.raises(FileError) as refused:
            read_clip_list(listed, *([tmp_path / "input"] if given_root else []))
        said.append(str(refused.value))
        outside.unlink(missing_ok=True)
    # Nor does the sentence tell whether there is anything.
    assert said[0] == said[1]


def test_the_roots_of_a_machine_are_not_looked_through(tmp_path):
    for way in ("etc/hostname", "x/etc/hostname"):
        with pytest.raises(FileError, match="is not there"):
            read_clip_list(write_rows(tmp_path / "list.csv", [way, 0, 9, 8, 0, "x"]))


def test_lines_reach_up_to_the_root_with_or_without_their_first_part(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "videos").mkdir()
    video = make_video(tmp_path / "videos" / "v.mp4", num_frames=10, fps=8)
    rows = [[way, 0, 9, 8, 0, "x"] for way in ("videos/v.mp4", "data/videos/v.mp4", str(video))]
    listed = write_rows(tmp_path / "a" / "b" / "list.csv", *rows)
    assert [clip.path for clip in read_clip_list(listed, tmp_path)] == [video] * 3


def test_the_authors_lists_reach_up_to_the_folder_that_holds_their_captions(tmp_path):
    (tmp_path / "data" / "captions" / "human" / "turn").mkdir(parents=True)
    video = make_video(tmp_path / "data" / "v.mp4", num_frames=10, fps=8)
    make_video(tmp_path / "w.mp4", num_frames=10, fps=8)
    folder = tmp_path / "data" / "captions" / "human" / "turn"
    assert read_clip_list(write_rows(folder / "crop.csv", ["v.mp4", 0, 9, 8, 0, "x"]))[0].path == video
    with pytest.raises(FileError, match="is not there"):
        read_clip_list(write_rows(folder / "crop.csv", ["w.mp4", 0, 9, 8, 0, "x"]))


@pytest.mark.parametrize(
    "content", [b"name,password\nroot,hunter2\n", b"user = hunter2\n", "a,hunter2".encode("utf-16"), b"\xff\xfehunter2"]
)
def test_what_a_file_holds_is_never_repeated(tmp_path, content):
    (tmp_path / "secret.csv").write_bytes(content)
    with pytest.raises(FileError) as refused:
        read_clip_list(tmp_path / "secret.csv")
    assert "hunter2" not in str(refused.value) and "password" not in str(refused.value)


def test_a_list_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "big.csv").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(FileError, match="big.csv: a list of more than 256 MB"):
        read_clip_list(tmp_path / "big.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_pipes_devices_and_folders_are_no_lists_and_no_videos(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "gone.csv"):
        with pytest.raises(FileError):
            read_clip_list(path)
    with pytest.raises(FileError, match="is not there"):
        read_clip_list(write_rows(tmp_path / "list.csv", ["pipe", 0, 9, 8, 0, "x"]))


# The columns of MiraData's table, as its page lists them.
TABLE = [
    "clip_id", "source", "video_url", "video_id", "width", "height", "fps", "seconds", "timestamp", "frame_number",
    "framestamp", "file_path", "short_caption", "dense_caption", "background_caption", "main_object_caption",
    "style_caption", "camera_caption",
]  # fmt: skip


def table_row(path, **captions):
    values = {"clip_id": "12.3", "fps": 30, "seconds": 2, "file_path": path} | captions
    return [values.get(name, "") for name in TABLE]


def test_miradatas_table_names_whole_clips_with_their_dense_captions(tmp_path):
    for name in ("a", "b"):
        make_video(tmp_path / f"{name}.mp4", num_frames=10, fps=8)
    table = write_rows(
        tmp_path / "meta.csv", TABLE,
        table_row("miradata/a.mp4", dense_caption="A long, \"full\" caption", short_caption="short"),
        table_row("miradata/gone.mp4", dense_caption="no longer there"),
        table_row("miradata/b.mp4", short_caption="only short"),
    )  # fmt: skip
    found = [(clip.path.name, clip.start, clip.duration, clip.caption) for clip in read_clip_list(table)]
    assert found == [("a.mp4", 0, 0, 'A long, "full" caption'), ("b.mp4", 0, 0, "only short")]


def test_a_table_of_which_nothing_is_there_or_without_captions_is_said(tmp_path):
    with pytest.raises(FileError, match="meta.csv: no file of its column file_path is there"):
        read_clip_list(write_rows(tmp_path / "meta.csv", TABLE, table_row("miradata/gone.mp4")))
    with pytest.raises(FileError, match="meta.csv: MiraData's table has a column dense_caption"):
        read_clip_list(write_rows(tmp_path / "meta.csv", ["file_path", "fps"], ["a.mp4", 8]))
