"""The client that docs/api.md shows, run as it stands there against a real ComfyUI."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from host.environment import ROOT
from host.media import read_frames
from host.models import NAME
from host.workflow import find_workflow, to_prompt

from .conftest import fit_to_small_model, load_workflow

CLIENT = re.search(r"```python\n(.*?)```", (Path(ROOT) / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)[1]


def test_the_client_sends_a_picture_and_gets_the_video_of_it(server, object_info, tmp_path):
    prompt = fit_to_small_model(to_prompt(load_workflow(find_workflow("flexiact_transfer")), object_info))
    (tmp_path / "prompt.json").write_text(json.dumps(prompt))
    (tmp_path / "client.py").write_text(CLIENT)
    arguments = [server.url, str(server.base / "input" / "photo.png"), "prompt.json", "result.mp4"]
    subprocess.run([sys.executable, "client.py", *arguments], cwd=tmp_path, check=True, timeout=600)
    assert (server.base / "input" / "mine.png").is_file() and NAME in json.dumps(prompt)
    assert len(read_frames(tmp_path / "result.mp4")) == 17
    assert 25 <= len(CLIENT.splitlines()) <= 40
