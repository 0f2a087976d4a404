"""Train Action leaves a preview of its action, which ComfyUI then serves to Load Action."""

from __future__ import annotations

import urllib.request

from host.media import read_frames

from .test_training import TRAINING, graph, trained

SHORT = TRAINING | {"steps": 1, "crops": 1}


def test_the_reference_clip_lies_beside_the_action_and_is_served(server):
    server.run(graph(SHORT | {"name": "previewed"}))
    preview = trained(server, "previewed").with_suffix(".mp4")
    frames = read_frames(preview)
    # All that the small model learns from, at its size.
    assert (len(frames), frames[0].size) == (17, (64, 64))
    with urllib.request.urlopen(f"{server.url}/flexiact/preview?file=fae/previewed.safetensors") as answer:
        assert (answer.headers["Content-Type"], answer.read()) == ("video/mp4", preview.read_bytes())


def test_a_name_whose_preview_is_taken_gets_a_number(server):
    taken = trained(server, "unseen").with_suffix(".mp4")
    taken.mkdir()
    run = server.run(graph(SHORT | {"name": "unseen"}))
    assert run.status == "success"
    assert taken.is_dir() and not trained(server, "unseen").exists()
    assert trained(server, "unseen_2").is_file() and trained(server, "unseen_2").with_suffix(".mp4").is_file()
