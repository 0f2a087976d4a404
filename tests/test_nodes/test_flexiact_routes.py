"""The pack's own routes, asked over HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

routes = pytest.importorskip("flexiact_pack.nodes.flexiact_routes", reason="needs ComfyUI: run `make test`")

from aiohttp import web  # noqa: E402
from aiohttp.test_utils import TestClient, TestServer  # noqa: E402
from small_models import make_fae, make_refadapter  # noqa: E402

TESTS = Path(__file__).parents[1]
RECORDED = load_file(TESTS / "golden" / "flexiact" / "sampling.safetensors")
SETTINGS = {"steps": 10, "scheduler": "DPM", "bias_strength": 1.0, "hold_until": 800, "off_below": 700,
            "weighting": "paper"}  # fmt: skip


def get(path: str, query: dict, headers: dict | None = None) -> tuple[int, dict | bytes, dict]:
    """Status, content (JSON read) and headers of the answer to a GET."""

    async def ask():
        table = web.RouteTableDef()
        routes.add_routes(table)
        app = web.Application()
        app.add_routes(table)
        async with TestClient(TestServer(app)) as client, client.get(path, params=query, headers=headers) as answer:
            content = await (answer.json() if answer.content_type == "application/json" else answer.read())
            return answer.status, content, dict(answer.headers)

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model folder known to ComfyUI: an action with a preview, one without, a RefAdapter and a stray video."""
    import folder_paths
    from flexiact_pack.nodes.flexiact import FILES

    root = tmp_path_factory.mktemp("models") / "flexiact"
    make_fae(root / "routes" / "with.safetensors")
    make_fae(root / "routes" / "without.pt")
    make_refadapter(root / "routes" / "adapter.safetensors")
    for name in ("with", "adapter", "stray"):
        (root / "routes" / f"{name}.mp4").write_bytes(name.encode() * 1000)
    (root.parent / "outside.mp4").write_bytes(b"secret")
    (root.parent / "outside.safetensors").write_bytes((root / "routes" / "with.safetensors").read_bytes())
    folder_paths.add_model_folder_path(FILES.name, str(root))
    return root


@pytest.mark.parametrize(
    ("recorded", "settings"),
    [("", {}), ("extra20.", {"steps": 20, "hold_until": 900, "bias_strength": 0.5, "weighting": "release"})],
)
def test_the_weighting_is_the_released_one_at_the_released_timesteps(recorded, settings):
    status, answer, _ = get("/flexiact/weighting", SETTINGS | settings)
    assert status == 200
    assert answer["timesteps"] == RECORDED[f"{recorded}timesteps"].tolist()
    biases = [answer["curve"][timestep] for timestep in answer["timesteps"]]
    assert biases == pytest.approx(RECORDED[f"{recorded}reweight_value"].nan_to_num(0).tolist(), abs=1e-6)


def test_the_curve_has_every_timestep():
    curve = get("/flexiact/weighting", SETTINGS | {"bias_strength": -2})[1]["curve"]
    assert len(curve) == 1000
    assert (curve[999], curve[800], curve[750], curve[700], curve[0]) == (-2, -2, pytest.approx(-1), 0, 0)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"off_below": 900}, "hold_until 800 must lie above off_below 900: the bias is held"),
        ({"bias_strength": "nan"}, "bias_strength nan: a finite number is needed"),
        ({"bias_strength": "strong"}, "bias_strength 'strong': a number is needed"),
        ({"hold_until": "8e2"}, "hold_until '8e2': a whole number is needed"),
        ({"steps": ""}, "steps '': a whole number is needed"),
        ({"steps": -1}, "steps -1: between 1 and 1000 are possible"),
        ({"steps": 1001}, "steps 1001: between 1 and 1000 are possible"),
        ({"scheduler": "Euler"}, "scheduler 'Euler': choose one of DPM, DDIM"),
        ({"weighting": "<b>"}, "weighting '<b>': choose 'auto', 'paper' or 'release'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_with_their_sentence(changed, sentence):
    status, answer, _ = get("/flexiact/weighting", SETTINGS | changed)
    assert status == 400
    assert answer["error"].startswith(sentence)


def test_what_is_auto_is_the_chosen_bases_own_and_the_released_ones_without_a_base(models):
    import folder_paths
    from flexiact_pack.nodes.cogvideox import BASES

    folder_paths.add_model_folder_path(BASES.name, str(models.parent / "CogVideo"))
    (models.parent / "CogVideo" / "own" / "transformer").mkdir(parents=True)
    said = {"run": {"steps": 4}, "motion_bias": {"strength": 3.0, "hold_until": 400, "off_below": 300}}
    (models.parent / "CogVideo" / "own" / "transformer" / "config.json").write_text(json.dumps(said))
    auto = SETTINGS | {"steps": 0, "weighting": "auto", "bias_strength": 0.5}
    for query in (auto, auto | {"base": "nowhere"}):
        status, answer, _ = get("/flexiact/weighting", query)
        assert (status, len(answer["timesteps"]), answer["own_strength"]) == (200, 50, 1)
        assert answer["shown"] == {"bias_strength": 0.5, "hold_until": 800, "off_below": 700}
    status, answer, _ = get("/flexiact/weighting", auto | {"base": "own"})
    assert (status, answer["timesteps"], answer["own_strength"]) == (200, [999, 749, 499, 249], 3)
    assert answer["shown"] == {"bias_strength": 1.5, "hold_until": 400, "off_below": 300}
    assert [answer["curve"][t] for t in (999, 400, 300)] == [1.5, 1.5, 0]


def test_no_settings_at_all_are_refused():
    assert get("/flexiact/weighting", {})[0] == 400


def test_a_preview_is_served_by_the_name_in_the_list(models):
    status, content, headers = get("/flexiact/preview", {"file": "routes/with.safetensors"})
    assert (status, content, headers["Content-Type"]) == (200, b"with" * 1000, "video/mp4")


def test_a_part_of_a_preview_can_be_asked_for_as_browsers_do(models):
    status, content, _ = get("/flexiact/preview", {"file": "routes/with.safetensors"}, {"Range": "bytes=2-5"})
    assert (status, content) == (206, b"thwi")


def test_an_action_without_a_preview_has_nothing_to_serve(models):
    assert get("/flexiact/preview", {"file": "routes/without.pt"})[:2] == (204, b"")


@pytest.mark.parametrize(
    "name",
    [
        "", "nothing.safetensors", "routes/with.mp4", "routes/stray.mp4", "routes/stray.safetensors",
        "routes/adapter.safetensors", "../outside.safetensors", "routes/../../outside.safetensors",
        "routes/../routes/with.safetensors", "..\\outside.safetensors", "{models}/routes/with.safetensors",
        "routes/with.safetensors\0",
    ],
)  # fmt: skip
def test_what_the_list_does_not_hold_is_not_served(models, name):
    status, answer, _ = get("/flexiact/preview", {"file": name.format(models=models)})
    assert status == 404
    assert "is not in" in answer["error"]
