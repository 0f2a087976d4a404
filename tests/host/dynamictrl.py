"""What DynamiCtrl's workflows need beside the pack: a small random base, a picture, a video with sound, and people.

Detectors, segmentation and text models cannot be had here. Avatars of the pack stand in: their poses for those of
detectors, their mask for that of a segmentation, a fixed sentence for a written prompt.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from .environment import ROOT

NAME = "small_random_poses"
WIDTH, HEIGHT, NUM_FRAMES = 64, 96, 13
SECONDS, RATE = 2, 16000

# What a small random model can do on a CPU. The pictures of avatars are as large as the video.
SMALL = {
    "LoadCogVideoXI2V": {"model": NAME, "components": "auto"},
    "LoadImage": {"image": "person.png"},
    "LoadVideo": {"file": "driving.mp4"},
    "RenderAvatars": {"width": WIDTH, "height": HEIGHT, "num_frames": NUM_FRAMES - 1},
    "AlignPose": {"width": WIDTH, "height": HEIGHT, "num_frames": NUM_FRAMES},
    "DynamiCtrlSampler": {"width": WIDTH, "height": HEIGHT, "num_frames": NUM_FRAMES, "steps": 2},
}
NOT_HERE = {"CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "CLIPTextEncode", "RTDETR_detect", "PreviewAny"}
STAND_INS = {"SDPoseKeypointExtractor": 2, "SAM3_Detect": 1}  # the output of Render Avatars that stands in
PLACE = {
    "person": "man", "clip": "dance", "x": 0, "z": 0, "turn": 0, "scale": 1, "fit": True, "start": 0, "speed": 1,
    "after": "loop", "tint": "#ffffff",
}  # fmt: skip
FILM = {"move": "still", "amount": 0, "fps": 16, "antialias": 1, "background": "#000000", "light": 0.6}


def put_base(models: Path) -> None:
    """Nothing; the folder `models` then holds a small random DynamiCtrl base, called NAME."""
    sys.path.append(str(Path(ROOT) / "tests"))
    from small_models_1_5 import make_base_1_5

    if not (models / "CogVideo" / NAME).is_dir():
        make_base_1_5(models / "CogVideo" / NAME, poses=True)


def put_inputs(folder: Path) -> None:
    """Nothing; ComfyUI's input folder then holds person.png and driving.mp4, two seconds with a tone."""
    import av

    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 80, 3), np.uint8)).save(folder / "person.png")
    if (folder / "driving.mp4").is_file():
        return
    with av.open(str(folder / "driving.mp4"), "w") as file:
        picture = file.add_stream("h264", rate=30, width=64, height=96, pix_fmt="yuv420p")
        sound = file.add_stream("aac", rate=RATE, layout="mono")
        for number in range(30 * SECONDS):
            pixels = np.full((96, 64, 3), 4 * number % 255, np.uint8)
            file.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        tone = np.sin(2 * np.pi * 440 * np.arange(RATE * SECONDS) / RATE).astype(np.float32)[None] * 0.5
        for start in range(0, RATE * SECONDS, 1024):
            frame = av.AudioFrame.from_ndarray(tone[:, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            file.mux(sound.encode(frame))
        for stream in (picture, sound):
            file.mux(stream.encode())


def with_stand_ins(prompt: dict) -> dict:
    """`prompt` with small sizes, and with avatars in place of what cannot be had here."""
    stand_ins = {key: STAND_INS[node["class_type"]] for key, node in prompt.items() if node["class_type"] in STAND_INS}
    words = {key for key, node in prompt.items() if node["class_type"] == "TextGenerate"}
    frames = {
        key: NUM_FRAMES - 1 if prompt[prompt[key]["inputs"]["image"][0]]["class_type"] == "GetVideoComponents" else 1
        for key in stand_ins
    }

    def moved(value):
        if not isinstance(value, list):
            return value
        if value[0] in stand_ins:
            return [f"film {value[0]}", stand_ins[value[0]]]
        return "A person in a room." if value[0] in words else value

    result = {}
    for key, node in prompt.items():
        if node["class_type"] in NOT_HERE or key in stand_ins or key in words:
            continue
        inputs = {name: moved(value) for name, value in node["inputs"].items()}
        result[key] = {**node, "inputs": inputs | _small(node)}
    for key, count in frames.items():
        film = FILM | {"width": WIDTH, "height": HEIGHT, "num_frames": count, "scene": [f"who {key}", 0]}
        result[f"who {key}"] = {"class_type": "PlaceAvatar", "inputs": PLACE, "_meta": {"title": "who"}}
        result[f"film {key}"] = {"class_type": "RenderAvatars", "inputs": film, "_meta": {"title": "film"}}
    return result


def with_drawn_poses(prompt: dict) -> dict:
    """`prompt` that also saves the poses of the first sampler as a video."""
    sampler = next(node for node in prompt.values() if node["class_type"] == "DynamiCtrlSampler")
    look = {"body": True, "hands": True, "face": True, "stroke": 30.0, "min_score": 0.3, "colours": "dynamictrl"}
    look |= {"width": 4 * WIDTH, "height": 4 * HEIGHT, "poses": sampler["inputs"]["poses"]}
    video = {"images": ["draw", 0], "fps": 16.0, "bit_depth": 8}
    save = {"video": ["drawn", 0], "filename_prefix": "flexiact/avatars_poses", "format": "auto", "codec": "auto"}
    more = {
        "draw": {"class_type": "DrawPose", "inputs": look, "_meta": {"title": "draw"}},
        "drawn": {"class_type": "CreateVideo", "inputs": video, "_meta": {"title": "drawn"}},
        "save drawn": {"class_type": "SaveVideo", "inputs": save, "_meta": {"title": "poses to perform"}},
    }
    return more | prompt


def _small(node: dict) -> dict:
    changes = dict(SMALL.get(node["class_type"], {}))
    if node["class_type"] == "RenderAvatars" and node["inputs"]["num_frames"] == 1:
        changes.pop("num_frames")
    return changes
