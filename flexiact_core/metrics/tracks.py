"""Where points of a video are over time: as ComfyUI's TRACKS carry them, or found by OpenCV's optical flow.

Shape letters: T frames, N points, H and W height and width in pixels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError, ShapeError
from ..plots import to_tensor

# Flow is found on frames whose longer side lies between these; small ones are enlarged, as its patches have 8 pixels.
SMALLEST_SIDE_PX, LARGEST_SIDE_PX = 256, 512
# Points of the grid on the longer side.
GRID = 24
# A point is lost where the flow back does not lead to within this of where it came from, in pixels of 256.
LARGEST_GAP_PX = 1.2
# A step shorter than this is not drawn.
STILL_PX = 0.3


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points over time: paths (T, N, 2), x and y in pixels; seen (T, N), whether each is seen; the frames' size."""

    paths: Tensor
    seen: Tensor
    width_px: int
    height_px: int

    @property
    def num_frames(self) -> int:
        return len(self.paths)

    def first(self, num_frames: int) -> Tracks:
        """The same points in the first frames alone."""
        return Tracks(self.paths[:num_frames], self.seen[:num_frames], self.width_px, self.height_px)


def read_tracks(value: Mapping[str, Any], name: str, width_px: int, height_px: int) -> Tracks:
    """Tracks from what ComfyUI's TRACKS carry: track_path (T, N, 2) in pixels and track_visibility (T, N) or (T, 1).

    A batch of one is taken, too. `name` is what messages call them.
    Raises ShapeError if there are no such tensors, their sizes do not agree, or a place is not a number.
    """
    paths, seen = (value.get(key) if isinstance(value, Mapping) else None for key in ("track_path", "track_visibility"))
    if not isinstance(paths, Tensor):
        raise ShapeError(f"{name}: no track_path in them. Connect TRACKS of a point tracker.")
    paths = paths.detach().cpu().float()
    seen = torch.ones(paths.shape[:-1], dtype=torch.bool) if seen is None else torch.as_tensor(seen).cpu() > 0
    if paths.ndim == 4 and len(paths) == 1:
        paths, seen = paths[0], seen[0] if seen.ndim == 3 else seen
    if paths.ndim != 3 or paths.shape[-1] != 2 or seen.ndim != 2 or len(seen) != len(paths):
        raise ShapeError(
            f"{name}: frames x points x 2 expected, and whether each is seen; {list(paths.shape)} and "
            f"{list(seen.shape)} found. Connect TRACKS of a point tracker."
        )
    if not torch.isfinite(paths).all():
        raise ShapeError(f"{name}: some places are not numbers (NaN or infinite). Look at the node that tracks.")
    return Tracks(paths, seen.expand(paths.shape[:2]), width_px, height_px)


def can_track() -> bool:
    """Whether the package that the built-in tracker needs is there."""
    return importlib.util.find_spec("cv2") is not None


def track_points(frames: Tensor, grid: int = GRID, on_frame: Callable[[int, int], None] = lambda *_: None) -> Tracks:
    """Tracks of a grid of points, `grid` along the longer side, through frames (T, H, W, 3) in 0..1.

    The points start in the middle frame and are followed both ways by dense optical flow from frame to frame (DIS,
    Kroeger et al. 2016, as OpenCV has it); each until the flow back leads elsewhere, or it leaves the picture.
    on_frame is called before each frame with how many are done, and of how many; it may raise to stop.
    Raises SettingError if OpenCV is not installed, ShapeError for fewer than 2 frames.
    """
    if not can_track():
        raise SettingError(
            "Tracks: the Python package opencv-python-headless is needed to follow points. Install it: pip install "
            "opencv-python-headless; or connect TRACKS of a point tracker."
        )
    if len(frames) < 2:
        raise ShapeError("Tracks: at least 2 frames are needed; one shows no motion. Connect a video's frames.")
    _, height, width, _ = frames.shape
    pictures, scale = _gray_pictures(frames)
    flows = _flows(pictures, on_frame)
    start, starts = len(pictures) // 2, _grid_points(pictures[0].shape, grid)
    ahead = _follow(starts, flows[start:], pictures[0].shape)
    back = _follow(starts, [(backward, forward) for forward, backward in reversed(flows[:start])], pictures[0].shape)
    steps = [*reversed(back), (starts, np.ones(len(starts), bool)), *ahead]
    paths = torch.from_numpy(np.stack([places for places, _ in steps])) / scale
    return Tracks(paths, torch.from_numpy(np.stack([seen for _, seen in steps])), width, height)


def _gray_pictures(frames: Tensor) -> tuple[list[np.ndarray], float]:
    """Grey pictures (h, w) of a size that flow is found well on, and by how much they are scaled."""
    import cv2

    longest = max(frames.shape[1:3])
    scale = min(max(1.0, SMALLEST_SIDE_PX / longest), LARGEST_SIDE_PX / longest)
    size = [max(16, round(side * scale)) for side in (frames.shape[2], frames.shape[1])]
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pictures = []
    for frame in frames.float().cpu().numpy():
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        # Rounded to 256 levels last: a slow motion shows in the parts of a level.
        gray = cv2.resize(gray, size, interpolation=kind) if scale != 1 else gray
        pictures.append((gray.clip(0, 1) * 255).round().astype(np.uint8))
    return pictures, scale


def _flows(
    pictures: list[np.ndarray], on_frame: Callable[[int, int], None]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The flow (h, w, 2) from each picture to the next, and back."""
    import cv2

    flow, flows = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST), []
    for index, (first, second) in enumerate(zip(pictures, pictures[1:], strict=False)):
        on_frame(index, len(pictures) - 1)
        flows.append((flow.calc(first, second, None), flow.calc(second, first, None)))
    return flows


def _grid_points(shape: tuple[int, int], grid: int) -> np.ndarray:
    height, width = shape
    step = max(height, width) / grid
    across, down = (np.arange(step / 2, side, step) for side in (width, height))
    return np.stack(np.meshgrid(across, down), -1).reshape(-1, 2).astype(np.float32)


def _follow(
    places: np.ndarray, flows: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places (N, 2) after each flow, and which of them are still seen."""
    height, width = shape
    gap = LARGEST_GAP_PX * max(shape) / 256
    seen, followed = np.ones(len(places), bool), []
    for there, back in flows:
        reached = places + _at(there, places)
        returned = reached + _at(back, reached)
        inside = (reached >= 0).all(1) & (reached[:, 0] < width) & (reached[:, 1] < height)
        seen = seen & inside & (np.linalg.norm(returned - places, axis=1) < gap)
        places = reached
        followed.append((places, seen))
    return followed


def _at(flow: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The flow at places (N, 2) in pixels, whose centres lie at halves."""
    import cv2

    across, down = (np.ascontiguousarray(places[:, axis, None] - 0.5) for axis in (0, 1))
    return cv2.remap(flow, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]


def draw_tracks(videos: Sequence[tuple[Tensor, Tracks]], side_px: int = 384) -> Tensor:
    """A picture (1, H, W, 3) in 0..1: of each video (T, H, W, 3) the middle frame, darkened, with its points' ways.

    Videos lie side by side, with their longer sides side_px, or one below the other where they are wide. A way is as
    bright as late; points that do not move are left out.
    """
    from PIL import Image, ImageDraw

    pictures = []
    for frames, tracks in videos:
        scale = side_px / max(tracks.width_px, tracks.height_px)
        size = [max(1, round(side * scale)) for side in (tracks.width_px, tracks.height_px)]
        frame = (frames[len(frames) // 2] * 127).round().byte().cpu().numpy()
        image = Image.fromarray(frame).resize(size)
        pen = ImageDraw.Draw(image)
        for step in range(1, tracks.num_frames):
            late = 80 + 175 * step // (tracks.num_frames - 1)
            kept = tracks.seen[step] & tracks.seen[step - 1]
            for start, end in zip(*(tracks.paths[at][kept] * scale for at in (step - 1, step))):
                if (end - start).norm() > STILL_PX:
                    pen.line([*start.tolist(), *end.tolist()], fill=(late, late * 3 // 4, 40), width=2)
        pictures.append(to_tensor(image)[0])
    axis = 0 if pictures[0].shape[1] > pictures[0].shape[0] * 1.2 else 1
    across = max(picture.shape[1 - axis] for picture in pictures)
    padding = [(0, 0, 0, across - p.shape[1]) if axis == 0 else (0, 0, 0, 0, 0, across - p.shape[0]) for p in pictures]
    return torch.cat([F.pad(p, room) for p, room in zip(pictures, padding)], dim=axis)[None]
