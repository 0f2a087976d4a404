"""The benchmarks run; how fast anything is, is no test."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from host.environment import ROOT

COMMAND = [sys.executable, "-m", "benchmarks", "--tiny", "--rounds", "1"]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots")
    run = subprocess.run([*COMMAND, "--plots", str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["growth_memory.png", "growth_time.png"]
    return run.stdout


@pytest.mark.parametrize("side", ["plain diffusers", "ours, bias on", "released, bias on"])
def test_every_side_is_in_the_table(printed, side):
    assert f"| step, {side} |" in printed


@pytest.mark.parametrize(
    "what",
    [
        "attention, released, dense mask",
        "50 steps, ours, exact",
        "6-step run, released",
        "6-step run, ours, taylor 3",
        "FAE training step, ours",
    ],
)
def test_every_part_is_in_the_table(printed, what):
    assert what in printed


def test_the_released_formulation_is_the_recorded_one():
    """The side compared with computes what it should: the golden forward with the bias on."""
    from test_core.conftest import GOLDEN, Golden

    from benchmarks.released import with_released_attention

    golden = Golden(GOLDEN)
    inputs = golden.tensors("forward")
    released = with_released_attention(golden.transformer, golden.fae.tokens, golden.refadapter, 0.7)
    with torch.no_grad():
        found = released(
            inputs["hidden_states"],
            inputs["encoder_hidden_states"],
            inputs["timestep"],
            image_rotary_emb=(inputs["rope_cos"], inputs["rope_sin"]),
            attention_kwargs={"bias": 1.0},
            return_dict=False,
        )[0]
    torch.testing.assert_close(found, inputs["out_fae_w0.7_rw1.0"], rtol=0, atol=1e-05)


@pytest.mark.parametrize("scheduler", ["DPM", "DDIM"])
def test_taylor_leaves_no_grain_in_the_small_world(scheduler):
    """What it extrapolates must not lose the noise that each step adds: videos stay 40 dB near the exact ones."""
    from benchmarks.quality import CHOICES, make_video
    from flexiact_core.metrics.video import video_psnr_db
    from flexiact_core.world.cases import SETTINGS, load_world, make_cases

    world, (case,) = load_world(), make_cases("jump", SETTINGS["weighted"], 1, 1)
    exact, near = (make_video(world, case, scheduler, CHOICES[name], 50)[0] for name in ("exact", "taylor 3"))
    assert 40 < video_psnr_db(near, exact) < 90


def test_held_bytes_are_those_alive_at_once():
    from benchmarks.measure import peak_bytes

    def work():
        first = torch.zeros(256)
        second = first + 1
        del first
        return (second * 2).sum()

    assert peak_bytes(work, torch.device("cpu")) == 2 * 256 * 4 + 4


def test_operations_of_attention_are_counted_alike_for_all_forms():
    from benchmarks.__main__ import step_flops
    from benchmarks.sizes import TINY

    flops = step_flops(TINY)
    assert flops["ours, bias on"] == flops["ours, bias off"] < flops["released, bias off"] == flops["released, bias on"]
    motion_keys = 4 * 2 * TINY.layers * (TINY.text_tokens + TINY.video_tokens) * TINY.text_tokens * TINY.width
    assert flops["ours, bias on"] == flops["plain diffusers"] + motion_keys


def test_drawing_avatars_has_its_table():
    command = [sys.executable, "-m", "benchmarks.avatars", "--tiny", "--rounds", "1"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "| 1 x 64x64, 1 samples a pixel |" in printed and "| reading man.glb, once |" in printed


def test_act_vae_has_its_table():
    command = [sys.executable, "-m", "benchmarks.act_vae", "--rounds", "1", "--image-rounds", "0"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed[0] == "| what | seconds | a clip or picture |" and len(printed) == 2 + 2 * 4
    assert all(line.count("|") == 4 for line in printed)
    for latent in (64, 512):
        assert any(line.startswith(f"| predict, latent {latent}, 64 clips") for line in printed)


def test_poses_have_their_table():
    command = [sys.executable, "-m", "benchmarks.pose", "--tiny", "--rounds", "1"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for what in (
        "64 tokens: with poses / without",
        "as released / one",
        "in streams",
        "counted at 20,400 tokens",
        "768x1360",
    ):
        assert what in printed
