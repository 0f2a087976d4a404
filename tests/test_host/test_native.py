"""The native nodes in a real ComfyUI, beside FlexiAct's own sampler on the same small world."""

from __future__ import annotations

import numpy as np
import pytest
from host.native import LORA, WEIGHTS, put_lora, with_small_world
from host.thumbnails import WORKFLOWS
from host.workflow import blueprint_to_prompt, find_workflow, to_prompt
from PIL import Image

from .conftest import load_workflow

SEED, STEPS = 11, 12
BLUEPRINT = WORKFLOWS.parent / "subgraphs" / "Make this picture do that.json"
SMALL_WORLD = "small world (built in)"


@pytest.fixture(scope="module")
def shipped(object_info):
    """shipped(name) is the prompt of a shipped workflow."""
    return lambda name: to_prompt(load_workflow(find_workflow(name)), object_info)


def change(prompt: dict, changes: dict[str, dict]) -> dict:
    """`prompt` with other inputs of nodes, by type; what is None is not connected."""
    result = {}
    for key, node in prompt.items():
        inputs = node["inputs"] | changes.get(node["class_type"], {})
        result[key] = {**node, "inputs": {name: value for name, value in inputs.items() if value is not None}}
    return result


def key_of(prompt: dict, kind: str) -> str:
    (key,) = (key for key, node in prompt.items() if node["class_type"] == kind)
    return key


def frames_of(server, prompt: dict, kind: str) -> np.ndarray:
    """The frames (T, H, W, 3) that the node of a kind gives, saved as PNG, which loses nothing."""
    save = {"class_type": "SaveImage", "inputs": {"images": [key_of(prompt, kind), 0], "filename_prefix": "native"}}
    rest = {key: node for key, node in prompt.items() if node["class_type"] != "SaveVideo"}
    files = server.output_files(server.run(rest | {"frames": save}))
    return np.stack([np.asarray(Image.open(file), np.float32) for file in files if file.name.startswith("native_")])


def slope_of(server, prompt: dict) -> tuple[float, object]:
    """What Measure Action says of the video, and the run."""
    shown = {"class_type": "PreviewAny", "inputs": {"source": [key_of(prompt, "MeasureAction"), 1]}}
    run = server.run(prompt | {"slope": shown})
    return float(run.outputs["slope"]["text"][0]), run


@pytest.mark.parametrize("scheduler", ["DPM", "DDIM"])
def test_the_native_workflow_has_the_slope_of_our_own_sampler_and_a_preview_each_step(server, shipped, scheduler):
    native = change(
        shipped("flexiact_native"),
        {
            "CogVideoXImageToVideo": {"seed": SEED}, "CogVideoXNoise": {"seed": SEED},
            "CogVideoXSampler": {"scheduler": scheduler}, "CogVideoXSchedule": {"steps": STEPS},
        },
    )  # fmt: skip
    own = change(
        shipped("flexiact_quickstart"), {"FlexiActSampler": {"seed": SEED, "scheduler": scheduler, "steps": STEPS}}
    )
    (found, run), (expected, _) = slope_of(server, native), slope_of(server, own)
    assert abs(found - expected) < 0.01 and expected > 0.8
    assert len(run.previews) == STEPS


def test_euler_on_the_simple_schedule_makes_the_frames_of_our_ddim(server, shipped):
    steps = 20
    seeds = {"CogVideoXImageToVideo": {"seed": SEED}, "CogVideoXNoise": {"seed": SEED}}
    native = change(shipped("flexiact_native"), seeds)
    model = native[key_of(native, "CogVideoXSchedule")]["inputs"]["model"]
    native |= {
        "euler": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "simple": {
            "class_type": "BasicScheduler",
            "inputs": {"model": model, "scheduler": "simple", "steps": steps, "denoise": 1.0},
        },
    }
    native = change(native, {"SamplerCustomAdvanced": {"sampler": ["euler", 0], "sigmas": ["simple", 0]}})
    settings = {"seed": SEED, "scheduler": "DDIM", "steps": steps}
    own = change(shipped("flexiact_quickstart"), {"FlexiActSampler": settings})
    found, expected = frames_of(server, native, "VAEDecode"), frames_of(server, own, "FlexiActSampler")
    difference = np.abs(found - expected)
    # ComfyUI's VAE decodes other stretches of frames at once: a few values are off by some of 255.
    assert difference.max() <= 8 and difference.mean() < 0.2


def test_a_lora_an_adapter_and_an_action_are_one_graph(server, shipped):
    put_lora(server.base / "models")
    graph = with_small_world(shipped("flexiact_native_lora"), "slide", server.base / "input")
    both = change(graph, {"KSampler": {"steps": STEPS}})
    alone = change(both, {"ApplyRefAdapter": {"weight": sum(WEIGHTS)}, "LoadCogVideoXLora": {"strength": 0.0}})
    bare = change(alone, {"ApplyRefAdapter": {"weight": 0.0}})
    two, one, none = (frames_of(server, prompt, "VAEDecode") for prompt in (both, alone, bare))
    assert np.abs(two - one).max() <= 1 < np.abs(two - none).max()


def test_loras_and_adapters_go_on_our_own_base_too(server, shipped):
    put_lora(server.base / "models")
    graph = change(shipped("flexiact_quickstart"), {"FlexiActSampler": {"steps": STEPS}})
    base = [key_of(graph, "LoadCogVideoXI2V"), 0]
    lora = {"model": base, "lora_file": LORA, "strength": 0.7}
    adapter = {"model": base, "adapter_file": f"{SMALL_WORLD}/refadapter.safetensors", "weight": 0.7}
    added = {
        "lora": {"class_type": "LoadCogVideoXLora", "inputs": lora},
        "adapter": {"class_type": "ApplyRefAdapter", "inputs": adapter},
    }
    one, two, none = (
        frames_of(server, change(graph | added, {"FlexiActSampler": {"model": [source, 0]}}), "FlexiActSampler")
        for source in ("lora", "adapter", base[0])
    )
    assert np.abs(one - two).max() <= 1 < np.abs(one - none).max()


def test_the_blueprint_makes_the_frames_of_the_flat_workflow(server, shipped, object_info):
    flat = change(shipped("flexiact_native"), {"CogVideoXSchedule": {"steps": STEPS}})
    adapter = {"adapter_file": f"{SMALL_WORLD}/refadapter.safetensors", "weight": 0.7}
    base, example = key_of(flat, "LoadCogVideoXNative"), key_of(flat, "LoadExampleAction")
    adapted = {"class_type": "ApplyRefAdapter", "inputs": {"model": [base, 0]} | adapter}
    flat = change(flat | {"adapted": adapted}, {"ApplyFlexiAct": {"model": ["adapted", 0]}})
    values = {
        "image": ["example", 0], "prompt": ["example", 1],
        "fae_file": flat[key_of(flat, "LoadFAEEmbedding")]["inputs"]["fae_file"],
        "width": 64, "height": 64, "num_frames": 17, "steps": STEPS, "cfg": 1.0, "seed": 7, "model": SMALL_WORLD,
    }  # fmt: skip
    blueprint = blueprint_to_prompt(load_workflow(BLUEPRINT), object_info, values | adapter)
    expected = frames_of(server, flat, "VAEDecode")
    found = frames_of(server, blueprint | {"example": flat[example]}, "VAEDecode")
    assert expected.shape == (17, 64, 64, 3) and np.array_equal(found, expected)
