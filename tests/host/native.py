"""The workflow of ComfyUI's own loaders on the small world, whose parts these take in no size but the released one."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from flexiact_core.world import shipped

# The loader that stands in for all, and which of its outputs each would give.
LOADERS = {"UNETLoader": 0, "CLIPLoader": 1, "VAELoader": 2}
LORA = "small_world_lora.safetensors"
# RefAdapter and LoRA are the same file here: their weights add up to the released one.
WEIGHTS = (0.3, 0.4)


def put_lora(models: Path) -> None:
    """The small world's RefAdapter among the LoRAs of the folder `models`."""
    (models / "loras").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shipped.refadapter_path(), models / "loras" / LORA)


def with_small_world(prompt: dict, action: str, input_folder: Path) -> dict:
    """`prompt` with what Load CogVideoX (native) gives of the small world in the place of what ComfyUI's loaders give;
    its first target as input_folder/target.png. put_lora() gives the LoRA."""
    example = shipped.example(action)
    input_folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((example.image * 255).round().astype("uint8")).save(input_folder / "target.png")
    changes = {
        "LoadCogVideoXLora": {"lora_file": LORA, "strength": WEIGHTS[0]},
        "ApplyRefAdapter": {"adapter_file": f"{shipped.LABEL}/{shipped.refadapter_path().name}", "weight": WEIGHTS[1]},
        "LoadFAEEmbedding": {"fae_file": f"{shipped.LABEL}/{shipped.fae_path(action).name}"},
        "LoadImage": {"image": "target.png"},
        "CogVideoXImageToVideo": {"width": 64, "height": 64, "num_frames": 17},
        "KSampler": {"steps": 25, "cfg": 1.0},
    }
    outputs = {key: LOADERS[node["class_type"]] for key, node in prompt.items() if node["class_type"] in LOADERS}
    result = {"base": _loader()}
    for key, node in prompt.items():
        if key in outputs:
            continue
        given = node["inputs"] | changes.get(node["class_type"], {})
        if node["class_type"] == "CLIPTextEncode" and given["text"]:
            given["text"] = example.caption
        linked = {name: ["base", outputs[value[0]]] for name, value in given.items() if _from(value, outputs)}
        result[key] = {**node, "inputs": given | linked}
    return result


def _loader() -> dict:
    chosen = {"model": shipped.LABEL, "components": "auto", "weights": "as stored"}
    parts = {"text_encoder": "from components", "vae": "from components"}
    title = {"title": "Load CogVideoX (native)"}
    return {"class_type": "LoadCogVideoXNative", "inputs": chosen | parts, "_meta": title}


def _from(value, outputs: dict) -> bool:
    return isinstance(value, list) and value[0] in outputs
