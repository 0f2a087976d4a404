"""What AMG's workflows need beside the pack: a demo folder, clips to learn from, and what the 3D viewer sends."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

DEMO, CLIPS = "change_background", "amg_clips"


def put_amg_inputs(folder: Path) -> Path:
    """`folder`, ComfyUI's input folder, with a demo folder of pictures, and a pair of videos with its caption."""
    from flexiact_core.video_files import write_preview

    frames = render_woman()
    (folder / DEMO).mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(frames):
        pixels = (picture * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / DEMO / f"frame_{5240 + 3 * number:06d}.jpg")
    (folder / DEMO / "captions.json").write_text('["A woman in a yellow dress waves."]', encoding="utf-8")
    for kind, shift in (("video", 0.3), ("avatar", 0.0)):
        (folder / CLIPS / kind).mkdir(parents=True, exist_ok=True)
        write_preview(folder / CLIPS / kind / "woman.mp4", (frames + shift).clamp(0, 1), 8)
    (folder / CLIPS / "video" / "woman.txt").write_text("A woman waves.", encoding="utf-8")
    return folder


def render_woman(num_frames: int = 16, width: int = 128, height: int = 128) -> torch.Tensor:
    """Frames (T, height, width, 3) in 0..1 of one of the pack's people, waving, on black."""
    from flexiact_core.avatars.scene import Scene, place_avatar, render_scene
    from flexiact_core.avatars.shipped import shipped_avatar

    scene = Scene().with_avatar(place_avatar(shipped_avatar("woman"), clip="wave"))
    return render_scene(scene, num_frames=num_frames, fps=8, width=width, height=height).frames


def with_amg_inputs(prompt: dict, folder: Path) -> dict:
    """`prompt` as the browser would send it, with all its files in `folder`, ComfyUI's input folder."""
    put_amg_inputs(folder)
    return change_inputs(prompt, {"Load3D": {"image": viewer_values(folder)}})


def change_inputs(prompt: dict, changes: dict[str, dict]) -> dict:
    """`prompt` with other inputs for each node of a kind."""
    return {
        key: node | {"inputs": node["inputs"] | changes.get(node["class_type"], {})} for key, node in prompt.items()
    }


def viewer_values(folder: Path) -> dict:
    """What the browser sends for Load 3D's `image`: stills that lie in `folder`, ComfyUI's input, and the camera."""
    for name in ("image", "mask", "normal"):
        Image.new("RGBA", (64, 64), (0, 0, 0, 255)).save(folder / f"viewer_{name}.png")
    camera = {
        "position": {"x": 1.0, "y": 1.2, "z": 3.5}, "target": {"x": 0.0, "y": 0.9, "z": 0.0}, "zoom": 1,
        "cameraType": "perspective", "fov": 35,
    }  # fmt: skip
    stills = {name: f"viewer_{name}.png" for name in ("image", "mask", "normal")}
    return stills | {"camera_info": camera, "recording": "", "model_3d_info": []}
