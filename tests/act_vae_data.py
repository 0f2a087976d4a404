"""Small ACT-VAE files as the release, its authors' lists and Penn Action have them, with figures in place of people."""

from __future__ import annotations

from pathlib import Path

import torch


def make_parts(actions: int = 9, latent: int = 8) -> dict[str, dict[str, torch.Tensor]]:
    """Random weights of all four networks under the release's keys, as small as they can be."""
    from flexiact_core.act_vae.fit import start_predictor
    from flexiact_core.act_vae.loading import ACTVAE, states_of
    from flexiact_core.act_vae.pose_to_image import PoseCritic, PoseToImage, start_weights

    generator = torch.Generator().manual_seed(0)
    painter, critic = PoseToImage(actions, 4, 2), PoseCritic(4, 1)
    for network in (painter, critic):
        start_weights(network, generator)
    model = ACTVAE(start_predictor(actions, latent, generator), (), generator=painter, critic=critic)
    return {
        part: {key: value.detach().clone() for key, value in state.items()} for part, state in states_of(model).items()
    }


def put_release(folder: Path, parts=None) -> Path:
    """A folder as the authors' archive unpacks: {'a': state} in each file, no critic."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = parts or make_parts()
    for part in ("im_encode_content", "im_encode_vae", "generator"):
        torch.save({"a": parts[part]}, folder / f"{part}.pt")
    return folder


def figures_px(num_clips: int, num_frames: int, side: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Joints (N, T, 13, 2) in pixels of pictures of this side, and the number of the action of each."""
    from flexiact_core.act_vae.figures import draw_figures

    clips = draw_figures(num_clips, num_frames, torch.Generator().manual_seed(1), margin=(0.4, 0.4))
    return (clips.poses.unflatten(-1, (13, 2)) + 1) * side / 2, clips.action


def put_list(folder: Path, num_clips: int = 6, side: int = 200) -> tuple[Path, Path]:
    """A list of 188 fields a line with its pictures, two videos for each action: the list, the folder of pictures.

    The last line is a clip that does not move, as the authors' list has some.
    """
    from PIL import Image

    points, _ = figures_px(num_clips, 6, side)
    points[-1] = points[-1, :1]
    lines, pictures = [], folder / "frames"
    for clip, poses in enumerate(points):
        video = f"{clip:04d}"
        (pictures / video).mkdir(parents=True, exist_ok=True)
        names = []
        for frame in range(6):
            colour = (40 * clip % 256, 40 * frame, 128)
            Image.new("RGB", (side, side), colour).save(pictures / video / f"{frame:06d}.jpg", quality=95)
            names.append(f"/data/authors/Penn_Action/frames/{video}/{frame:06d}.jpg")
        boxes = [torch.cat([pose.amin(0), pose.amax(0)]) for pose in poses[1:]]
        numbers = torch.cat([torch.tensor([5.0, 10.0, 195.0, 190.0]), *boxes, poses[1:].flatten(), poses[0].flatten()])
        action = clip % 3
        fields = [*names, ("tennis_serve", "pullup", "clean_and_jerk")[action], str(action)]
        lines.append(",".join([*fields, *(f"{number:.3f}" for number in numbers.tolist())]))
    path = folder / "testing_pair_penn5.txt"
    path.write_text("\n".join(lines) + "\n")
    return path, pictures


def put_labels(folder: Path, num_frames: int = 20) -> Path:
    """Four .mat files of Penn Action's labels: two videos of squat, one of bowl, one too short."""
    import numpy as np
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    points, _ = figures_px(4, num_frames)
    for number, (action, poses) in enumerate(zip(("squat", "squat", "bowl", "squat"), points.numpy()), 1):
        poses = poses[: 3 if number == 4 else num_frames]
        low, high = poses.min(1) - 5, poses.max(1) + 5
        savemat(
            folder / f"{number:04d}.mat",
            {
                "action": action, "pose": "front", "x": poses[..., 0].astype(np.float64),
                "y": poses[..., 1].astype(np.float64), "visibility": np.ones(poses.shape[:2]),
                "train": 1, "bbox": np.concatenate([low, high], 1), "dimensions": np.array([200, 200, len(poses)]),
                "nframes": len(poses),
            },
        )  # fmt: skip
    return folder


def put_poses(folder: Path, actions=("bow", "wave"), videos: int = 2, num_frames: int = 12) -> Path:
    """FOLDER/ACTION/NUMBER.json: POSE_KEYPOINT files of figures."""
    import json

    from flexiact_core.poses.keypoints import write_openpose
    from flexiact_core.poses.sequence import PoseSequence
    from flexiact_core.poses.skeletons import PENN13

    points, _ = figures_px(len(actions) * videos, num_frames)
    for number, poses in enumerate(points):
        action = folder / actions[number % len(actions)]
        action.mkdir(parents=True, exist_ok=True)
        value = write_openpose(PoseSequence(poses[:, None], torch.ones(len(poses), 1, 13), (200, 200), 8.0, PENN13))
        (action / f"{number:02d}.json").write_text(json.dumps(value))
    return folder
