"""`make demo`, as a user runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from host.demo import contact_sheet
from host.environment import ROOT
from host.media import read_frames
from PIL import Image

pytestmark = pytest.mark.xdist_group("host")


def test_the_demo_makes_videos_that_play_and_a_contact_sheet(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.host.demo", str(tmp_path)], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    videos = [tmp_path / "quickstart.mp4", tmp_path / "dynamictrl_quickstart.mp4"]
    sheet = tmp_path / "contact_sheet.png"
    assert all(str(file) in done.stdout for file in [*videos, sheet])
    shown = [read_frames(file) for file in videos]
    assert [(len(frames), frames[0].size) for frames in shown] == [(17, (256, 256)), (21, (256, 256))]
    assert Image.open(sheet).width > 6 * 160


def test_a_contact_sheet_has_a_row_per_label(tmp_path):
    rows = [("one", [Image.new("RGB", (40, 30), "red")]), ("two", [Image.new("RGB", (40, 30), "blue")] * 3)]
    sheet = Image.open(contact_sheet(rows, tmp_path / "sheet.png"))
    assert sheet.getpixel((8 + 20, 8 + 26 + 15)) == (255, 0, 0)
    assert sheet.getpixel((8 + 2 * 48 + 20, 8 + 64 + 26 + 15)) == (0, 0, 255)
    assert sheet.getpixel((8 + 48 + 20, 8 + 26 + 15)) == (24, 24, 24)
