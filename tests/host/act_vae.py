"""What ACT-VAE's workflows need beside the pack: small random files in the place of the authors', or drawn poses in
the place of what cannot be made here."""

from __future__ import annotations

import sys
from pathlib import Path

from .environment import ROOT

RELEASE = "pretrain"
# What is made of poses by weights that are not here.
MAKERS = {"PoseToImage", "DynamiCtrlSampler"}


def put_act_vae(models: Path) -> None:
    """Nothing; the folder `models` then holds random weights in the release's layout, called RELEASE."""
    sys.path.append(str(Path(ROOT) / "tests"))
    from act_vae_data import put_release

    if not (models / "act_vae" / RELEASE).is_dir():
        put_release(models / "act_vae" / RELEASE)


def poses_instead(prompt: dict) -> dict:
    """`prompt` on the shipped model, with a video of the poses, drawn over the picture, in the place of what DynamiCtrl
    or P2I would make of them."""
    changes = {
        "LoadACTVAE": {"model": "figures.safetensors"},
        "PredictActionPoses": {"num_frames": 21, "fps": 16.0},
        "RenderAvatars": {"width": 192, "height": 256},
    }
    result, (maker,) = {}, [key for key, node in prompt.items() if node["class_type"] in MAKERS]
    inputs = prompt[maker]["inputs"]
    draw = {
        "poses": inputs["poses"], "picture": inputs["image"], "width": 0, "height": 0, "body": True, "hands": True,
        "face": True, "stroke": 24.0, "min_score": 0.3, "colours": "openpose",
    }  # fmt: skip
    for key, node in prompt.items():
        if key != maker and node["class_type"] not in ("LoadCogVideoXI2V", "DrawPose", "PreviewImage"):
            result[key] = {**node, "inputs": node["inputs"] | changes.get(node["class_type"], {})}
    for node in result.values():
        if node["class_type"] == "PredictActionPoses" and node["inputs"]["action"] == "golf_swing":
            node["inputs"]["action"] = "throw"
    result["drawn"] = {"class_type": "DrawPose", "inputs": draw, "_meta": {"title": "drawn"}}
    film = {"images": ["drawn", 0], "fps": 16.0, "bit_depth": 8}
    result[maker] = {"class_type": "CreateVideo", "inputs": film, "_meta": {"title": "film"}}
    for node in result.values():
        if node["class_type"] == "SaveVideo":
            node["inputs"] = {**node["inputs"], "video": [maker, 0]}
    return result
