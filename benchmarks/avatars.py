"""How long drawing avatars takes: `python -m benchmarks.avatars`.

16 frames of a shipped person walking, seen from close enough to fill the picture's height, by size and by samples a
pixel; what skinning takes of it; and reading a file. Times are medians of the rounds: on a CPU seconds that the process
computed, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from benchmarks.measure import clock, peak_bytes
from flexiact_core.avatars.pose import joint_matrices, skin
from flexiact_core.avatars.scene import Scene, place_avatar, render_scene
from flexiact_core.avatars.shipped import shipped_avatar

NUM_FRAMES = 16
# People, side of the picture, samples along a pixel's side.
CASES = ((1, 256, 1), (1, 256, 2), (2, 256, 2), (1, 512, 1), (1, 512, 2), (2, 512, 2), (2, 1024, 2))
HEAD = ["| what | seconds, 16 frames | covered | memory held |", "|---|---|---|---|"]


def make_scene(people: int) -> Scene:
    """A scene with the man, and the woman beside him if there are two."""
    placements = [place_avatar(shipped_avatar(name), clip="walk", x=x) for name, x in (("man", -0.4), ("woman", 0.4))]
    return Scene((placements[0],) if people == 1 else tuple(placements))


def film(scene: Scene, side: int, antialias: int, device: torch.device):
    """16 frames at 8 a second, by the camera that shows all of it."""
    return render_scene(scene, num_frames=NUM_FRAMES, width=side, height=side, antialias=antialias, device=device)


def skinning(scene: Scene) -> None:
    """What posing and skinning alone take."""
    seconds = torch.arange(NUM_FRAMES) / 8
    for placement in scene.placements:
        for matrices in joint_matrices(placement.avatar, placement.nodes_at(seconds)):
            skin(placement.avatar, matrices)


def table(device: torch.device, rounds: int, cases=CASES) -> list[str]:
    """The rows, a line each."""
    one, two = make_scene(1), make_scene(2)
    works: dict[str, Callable[[], object]] = {
        f"{people} x {side}x{side}, {samples * samples} samples a pixel": (
            lambda people=people, side=side, samples=samples: film((one, two)[people - 1], side, samples, device)
        )
        for people, side, samples in cases
    }
    rows = []
    for name, work in works.items():
        covered = float(work().masks.mean())
        rows.append(row(name, seconds_of(work, device, rounds), f"{covered:.0%}", peak_bytes(work, device)))
    rows.append(row("of which posing and skinning, 1 person", seconds_of(lambda: skinning(one), device, rounds)))
    rows.append(row("reading man.glb, once", seconds_of(lambda: shipped_avatar("man"), device, rounds)))
    return rows


def seconds_of(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The median over the rounds."""
    seconds = []
    for _ in range(rounds):
        started = clock(device)
        work()
        seconds.append(clock(device) - started)
    return statistics.median(seconds)


def row(name: str, seconds: float, covered: str = "", memory: int | None = None) -> str:
    """A line of the table."""
    held = "" if memory is None else f"{memory / 2**20:.0f} MiB"
    return f"| {name} | {seconds:.2f} | {covered} | {held} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="one small case, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    triangles = [len(shipped_avatar(name).faces) for name in ("man", "woman")]
    print(f"Triangles: man {triangles[0]}, woman {triangles[1]}. torch {torch.__version__}, {options.device}.\n")
    cases = ((1, 64, 1),) if options.tiny else CASES
    print("\n".join([*HEAD, *table(torch.device(options.device), options.rounds, cases)]))


if __name__ == "__main__":
    main()
