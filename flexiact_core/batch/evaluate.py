"""What papers report of a batch: each video measured against its reference, and tables of their means."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from ..errors import FileError, FlexiActError
from ..metrics.clip import SeesFrames
from ..metrics.evaluate import MEASURES, evaluate_video
from ..metrics.statistics import interval
from ..metrics.tracks import Tracks, track_points
from ..plots import draw_intervals
from ..video_files import read_video
from ..weight_files import write_content
from .jobs import Job

# Of each video: a row in the CSV file, and from these the tables.
Record = dict
CSV_FILE, TABLE_FILE, PLOT_FILE = "evaluation.csv", "evaluation.md", "evaluation.png"
ALL = "all"


def measure_jobs(
    jobs: Sequence[Job], file_of: Callable[[Job], Path], fps: int, clip: SeesFrames | None,
    on_job: Callable[[int, str], None] = lambda *_: None,
) -> list[Record]:  # fmt: skip
    """A Record of each job's video: kind, action, target, seed, and what could be measured of it.

    fps is the videos'. Without a clip its three measures are missing, without a reference or OpenCV motion fidelity.
    on_job is called with each job's number and a sentence on what is missing, if anything is.
    """
    references: dict[tuple, Tracks | str] = {}
    records = []
    for number, job in enumerate(jobs):
        frames = _frames(file_of(job), fps)
        reference = _reference(job, fps, references)
        own = _tracked(frames) if isinstance(reference, Tracks) else reference
        motion = {"no_tracks": own} if isinstance(own, str) else {"tracks": own, "reference": reference}
        made = evaluate_video(frames, prompt=job.prompt, clip=clip, **motion)
        kind, action = job.group if any(job.group) else (job.system, job.action.stem if job.action else job.word)
        target = job.picture.stem if job.picture else ""
        about = {"line": job.line, "kind": kind, "action": action, "target": target, "seed": job.seed}
        records.append(about | {"file": file_of(job).name} | dict(made.values))
        on_job(number, "; ".join(f"{MEASURES[name].title}: {reason}" for name, reason in made.missing.items()))
    return records


def write_tables(records: Sequence[Record], folder: Path) -> list[Path]:
    """The three files written into `folder`: a row for each video, a table of means with 95 % intervals, its plot.

    Intervals are bootstrapped over actions' targets; seeds of a target stay together. Raises FileError if no video was
    measured.
    """
    measured = [name for name in MEASURES if any(name in record for record in records)]
    if not measured:
        raise FileError("evaluation: nothing could be measured. Name a CLIP with --clip, and install OpenCV.")
    rows = [(label, {name: _mean(part, name) for name in measured}) for label, part in _groups(records)]
    columns = ["line", "kind", "action", "target", "seed", "file", *measured]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    picture = draw_intervals(
        [(MEASURES[name].title, [(label, means[name]) for label, means in rows if means[name]]) for name in measured]
    )
    return [
        _write(folder / CSV_FILE, text.getvalue().encode()),
        _write(folder / TABLE_FILE, _markdown(rows, measured, len(records)).encode()),
        _write(folder / PLOT_FILE, _as_png(picture)),
    ]


def _groups(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """All, each kind, and each action, with their records."""
    kinds = sorted({record["kind"] for record in records})
    actions = sorted({(record["kind"], record["action"]) for record in records})
    groups = [(ALL, list(records))]
    for kind in kinds:
        groups.append((kind, [record for record in records if record["kind"] == kind]))
        for own_kind, action in actions:
            if own_kind == kind:
                part = [record for record in records if (record["kind"], record["action"]) == (kind, action)]
                groups.append((f"{kind}/{action}", part))
    return groups


def _mean(records: Sequence[Record], name: str) -> tuple[float, float, float] | None:
    known = [record for record in records if name in record]
    return interval(known, name) if known else None


def _markdown(rows, measured: Sequence[str], count: int) -> str:
    titles = [MEASURES[name].title for name in measured]
    lines = [f"| of {count} videos | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for label, means in rows:
        cells = [_cell(means[name], MEASURES[name].digits) for name in measured]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    ends = [f"- {MEASURES[name].title}: {MEASURES[name].about}" for name in measured]
    return "\n".join([*lines, "", "Means, with 95 % intervals over actions' targets in brackets.", "", *ends]) + "\n"


def _cell(found: tuple[float, float, float] | None, digits: int) -> str:
    return "" if found is None else f"{found[0]:.{digits}f} ({found[1]:.{digits}f} to {found[2]:.{digits}f})"


def _frames(path: Path, fps: int, start: float = 0.0, duration: float = 0.0) -> Tensor:
    return read_video(path, fps, start, duration) / 255


def _reference(job: Job, fps: int, known: dict[tuple, Tracks | str]) -> Tracks | str:
    """Points through the job's reference, or the sentence on why there are none."""
    clip = job.reference
    if clip is None:
        return "the row names no reference."
    key = clip.path, clip.start, clip.duration
    if key not in known:
        try:
            known[key] = _tracked(_frames(clip.path, fps, clip.start, clip.duration))
        except FlexiActError as error:
            known[key] = str(error)
    return known[key]


def _tracked(frames: Tensor) -> Tracks | str:
    try:
        return track_points(frames)
    except FlexiActError as error:
        return str(error)


def _write(path: Path, content: bytes) -> Path:
    return write_content(path, content)


def _as_png(picture: Tensor) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray((picture[0] * 255).round().byte().numpy()).save(file, "png")
    return file.getvalue()
