"""Pictures of numbers and of frames, for nodes to show.

Shape letters: T frames, H W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

BACKGROUND, GRID, TEXT = (24, 26, 30), (58, 62, 70), (200, 204, 210)
LINES = ((120, 200, 255), (255, 180, 90), (140, 230, 140), (240, 130, 180))
HEAT = ((18, 14, 40), (90, 30, 110), (190, 55, 85), (245, 140, 50), (252, 250, 180))
MARGIN_PX = 44


def draw_lines(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    width_px: int = 640,
    height_px: int = 360,
    log_y: bool = False,
) -> Tensor:
    """A picture (1, H, W, 3) in 0..1 of lines over common axes; each of `series` is its name, its x and its y values.

    Values that are not finite, or not above 0 with log_y, are left out.
    """
    import math

    from PIL import Image, ImageDraw

    points = [
        (name, [(x, math.log10(y) if log_y else y) for x, y in zip(xs, ys, strict=True)
                if math.isfinite(y) and (y > 0 or not log_y)])
        for name, xs, ys in series
    ]  # fmt: skip
    everything = [point for _, line in points for point in line] or [(0.0, 0.0)]
    x_low, x_high = _span([x for x, _ in everything])
    y_low, y_high = _span([y for _, y in everything])
    image = Image.new("RGB", (width_px, height_px), BACKGROUND)
    pen = ImageDraw.Draw(image)
    left, right, top, bottom = MARGIN_PX + 12, width_px - 24, MARGIN_PX - 12, height_px - MARGIN_PX

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return left + across * (right - left), bottom - up * (bottom - top)

    for part in range(5):
        x, y = x_low + (x_high - x_low) * part / 4, y_low + (y_high - y_low) * part / 4
        across, _ = place(x, y_low)
        _, up = place(x_low, y)
        pen.line([(left, up), (right, up)], fill=GRID)
        pen.line([(across, bottom), (across, bottom + 4)], fill=GRID)
        pen.text((across, bottom + 8), _in_words(x), fill=TEXT, anchor="ma")
        pen.text((left - 6, up), _in_words(10**y if log_y else y), fill=TEXT, anchor="rm")
    pen.text(((left + right) / 2, height_px - 14), x_label, fill=TEXT, anchor="mm")
    pen.text((left, 14), title, fill=TEXT, anchor="lm")
    # Names stand where the lines leave more room.
    name_at, anchor = (left + 4, "lm") if _rise(everything, (x_low + x_high) / 2) else (right - 4, "rm")
    for index, (name, line) in enumerate(points):
        colour = LINES[index % len(LINES)]
        pen.line([place(x, y) for x, y in line], fill=colour, width=2)
        if name:
            pen.text((name_at, top + 8 + 14 * index), name, fill=colour, anchor=anchor)
    return to_tensor(image)


def _rise(points: list[tuple[float, float]], middle: float) -> bool:
    early, late = ([y for x, y in points if (x > middle) == half] or [0.0] for half in (False, True))
    return fmean(late) > fmean(early)


def draw_loss(losses: Sequence[float] | Tensor, window: int = 50) -> Tensor:
    """A picture (1, H, W, 3) of a training's loss by step, each step's and the mean of the last `window` of them."""
    values = torch.as_tensor(losses, dtype=torch.float64)
    steps = list(range(1, len(values) + 1))
    sums = torch.cumsum(torch.cat([values.new_zeros(1), values]), 0)
    starts = (torch.arange(len(values)) + 1 - window).clamp(min=0)
    means = (sums[1:] - sums[starts]) / (torch.arange(len(values)) + 1 - starts)
    shown = [("each step", steps, values.tolist()), (f"mean of {window}", steps, means.tolist())]
    return draw_lines(shown, title="loss", x_label="step", log_y=True)


def draw_heat_map(
    values: Tensor, *, title: str, x_label: str, y_label: str, width_px: int = 640, height_px: int = 400
) -> Tensor:
    """A picture (1, H, W, 3) in 0..1 of values (rows, columns), row 0 on top, with a scale from 0 to their largest.

    Values that are not finite are left in the colour of the background.
    """
    from PIL import Image, ImageDraw

    rows, columns = values.shape
    known = values.isfinite()
    top_value = float(values[known].max()) if known.any() else 0.0
    colours = torch.tensor(HEAT, dtype=torch.float32)

    def colour_of(shares: Tensor) -> Tensor:
        place = shares.clamp(0, 1) * (len(colours) - 1)
        lower = place.floor().long().clamp(max=len(colours) - 2)
        return torch.lerp(colours[lower], colours[lower + 1], (place - lower)[..., None])

    cells = colour_of(torch.where(known, values, 0.0).float() / (top_value or 1.0))
    cells[~known] = torch.tensor(BACKGROUND, dtype=torch.float32)
    left, right, top, bottom = MARGIN_PX + 12, width_px - 92, MARGIN_PX - 12, height_px - MARGIN_PX
    image = Image.new("RGB", (width_px, height_px), BACKGROUND)
    pen = ImageDraw.Draw(image)
    for part, box in (
        (cells, (left, top, right, bottom)),
        (colour_of(torch.linspace(1, 0, 64)[:, None]), (right + 16, top, right + 32, bottom)),
    ):
        drawn = Image.fromarray(part.byte().numpy())
        image.paste(drawn.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.NEAREST), box[:2])
    for value, height in ((top_value, top), (top_value / 2, (top + bottom) / 2), (0.0, bottom)):
        pen.text((right + 38, height), f"{value:.3g}", fill=TEXT, anchor="lm")
    for number in sorted({0, rows // 2, rows - 1}):
        pen.text((left - 6, top + (number + 0.5) * (bottom - top) / rows), str(number + 1), fill=TEXT, anchor="rm")
    for number in sorted({0, columns // 2, columns - 1}):
        across = left + (number + 0.5) * (right - left) / columns
        pen.text((across, bottom + 8), str(number + 1), fill=TEXT, anchor="ma")
    pen.text(((left + right) / 2, height_px - 14), x_label, fill=TEXT, anchor="mm")
    pen.text((6, top - 10), y_label, fill=TEXT, anchor="lm")
    pen.text((left + 40, 14), title, fill=TEXT, anchor="lm")
    return to_tensor(image)


def draw_intervals(
    panels: Sequence[tuple[str, Sequence[tuple[str, tuple[float, float, float]]]]], width_px: int = 300
) -> Tensor:
    """A picture (1, H, W, 3) in 0..1 of means with their intervals: a panel for each title, a line for each label.

    A value is mean, lower and upper end. Panels lie side by side, each width_px wide, and share their labels.
    """
    from PIL import Image, ImageDraw

    labels = list(dict.fromkeys(label for _, values in panels for label, _ in values))
    left, line, top = 24 + 7 * max(map(len, labels), default=0), 18, 40
    image = Image.new("RGB", (left + width_px * len(panels), top + line * len(labels) + 34), BACKGROUND)
    pen = ImageDraw.Draw(image)
    for row, label in enumerate(labels):
        pen.text((12, top + line * row), label, fill=TEXT, anchor="lm")
    for number, (title, values) in enumerate(panels):
        low, high = _span([end for _, value in values for end in value])
        start, length, colour = left + number * width_px, width_px - 44, LINES[number % len(LINES)]
        pen.text((start, 14), title, fill=colour, anchor="lm")

        def place(value: float, start=start, length=length, low=low, high=high) -> float:
            return start + (value - low) / (high - low) * length

        for label, (mean, lower, upper) in values:
            height = top + line * labels.index(label)
            pen.line([(start, height), (start + length, height)], fill=GRID)
            pen.line([(place(lower), height), (place(upper), height)], fill=colour, width=3)
            pen.ellipse([place(mean) - 4, height - 4, place(mean) + 4, height + 4], fill=colour)
        for value, anchor in ((low, "lm"), (high, "rm")):
            pen.text((place(value), image.height - 16), _in_words(value), fill=TEXT, anchor=anchor)
    return to_tensor(image)


def to_tensor(image: Image.Image) -> Tensor:
    """A picture (1, H, W, 3) in 0..1 from a PIL image in RGB."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(1, image.height, image.width, 3) / 255


def tile_videos(videos: Sequence[Tensor], frames_each: int = 4, side_px: int = 160) -> Tensor:
    """A picture (1, H, W, 3): a row for each video (T, H, W, 3) in 0..1, with a few of its frames, evenly spaced."""
    rows = []
    for video in videos:
        picked = video[torch.linspace(0, len(video) - 1, frames_each).round().long()]
        scale = side_px / max(picked.shape[1:3])
        size = [max(1, round(side * scale)) for side in picked.shape[1:3]]
        small = F.interpolate(picked.permute(0, 3, 1, 2), size, mode="area").permute(0, 2, 3, 1)
        framed = F.pad(small, (0, 0, 2, 2, 2, 2), value=0.1)
        rows.append(torch.cat(list(framed), dim=1))
    return torch.cat(rows, dim=0)[None]


def draw_over(plot: Tensor, videos: Sequence[Tensor], frames_each: int) -> Tensor:
    """A picture (1, H, W, 3): frames of each video in a row of its own, as wide as a plot (1, h, W, 3), and that plot
    below."""
    width = plot.shape[2]
    rows = tile_videos(videos, frames_each, side_px=width // frames_each - 4)
    return torch.cat([torch.nn.functional.pad(rows, (0, 0, 0, width - rows.shape[2])), plot], dim=1)


def _in_words(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
