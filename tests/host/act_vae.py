"""What ACT-VAE's workflows need beside the pack: small random files in the place of the authors'."""

from __future__ import annotations

import sys
from pathlib import Path

from .environment import ROOT

RELEASE = "pretrain"


def put_act_vae(models: Path) -> None:
    """Nothing; the folder `models` then holds random weights in the release's layout, called RELEASE."""
    sys.path.append(str(Path(ROOT) / "tests"))
    from act_vae_data import put_release

    if not (models / "act_vae" / RELEASE).is_dir():
        put_release(models / "act_vae" / RELEASE)


def without_pictures(prompt: dict) -> dict:
    """`prompt` on the shipped model, with the predicted poses, drawn, in place of P2I's pictures."""
    result = {}
    for key, node in prompt.items():
        inputs = dict(node["inputs"])
        if node["class_type"] == "LoadACTVAE":
            inputs["model"] = "figures.safetensors"
        if node["class_type"] == "PredictActionPoses":
            inputs |= {"action": "squat"}
            poses = key
        result[key] = {**node, "inputs": inputs}
    (painter,) = (key for key, node in result.items() if node["class_type"] == "PoseToImage")
    video = {"images": [poses, 1], "fps": 8.0, "bit_depth": 8}
    result[painter] = {"class_type": "CreateVideo", "inputs": video, "_meta": {"title": "drawn"}}
    for node in result.values():
        if node["class_type"] == "SaveVideo":
            node["inputs"] = {**node["inputs"], "video": [painter, 0]}
    return result
