import pytest
from videos import HEADER, make_video, write_rows

from flexiact_core.clip_lists import read_clip_list
from flexiact_core.errors import FileError


def test_a_list_without_a_header_keeps_its_first_line(tmp_path):
    make_video(tmp_path / "a.mp4", num_frames=10, fps=8)
    rows = read_clip_list(write_rows(tmp_path / "list.csv", ["a.mp4", 2, 10, 8, "", "something moves"]))
    assert [(row.start, row.duration, row.caption) for row in rows] == [(0.25, 1.0, "something moves")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([HEADER, ["gone.mp4", 0, 10, 8, 0, "x"]], "line 2: gone.mp4 is not there"),
        ([HEADER, ["a.mp4", "zero", 10, 8, 0, "x"]], "line 2: path, start frame"),
        ([HEADER, ["a.mp4", 0, 10, 0, 0, "x"]], "line 2: path, start frame"),
        ([HEADER, ["a.mp4", "x"]], "line 2: path, start frame"),
        ([HEADER], "no clip in the list"),
    ],
)
def test_a_bad_line_is_named(tmp_path, rows, message):
    make_video(tmp_path / "a.mp4", num_frames=10, fps=8)
    with pytest.raises(FileError, match=message):
        read_clip_list(write_rows(tmp_path / "list.csv", *rows))
