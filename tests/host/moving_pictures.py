"""The moving pictures of README and docs, made anew by the small world: `python -m tests.host.moving_pictures`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from flexiact_core.flexiact.bias import MotionBias, own_bias
from flexiact_core.plots import BACKGROUND, TEXT
from flexiact_core.world import actors, shipped
from flexiact_core.world.actor_cases import driving, example_case, load_actors
from flexiact_core.world.actor_cases import perform as follow
from flexiact_core.world.cases import SETTINGS, Case, load_world, make_cases, sample_videos
from flexiact_core.world.scenes import caption, sample_target
from flexiact_core.world.take_cases import film_takes, load_small_amg, take_case
from flexiact_core.world.takes import TAKE_FPS, render_avatar, take_caption

from .pictures import DOCS, ROOT, tile

ONE_SUBJECT = ("jump", "slide", "spin", "grow", "hop")
# The action whose targets are shown doing others too, so that one subject is seen in all of them.
OF_TARGETS = "slide"
FOLLOWED = ("jumping_jacks", "kick", "lunge", "wave", "bow", "walk")
FILMED = 5
CONTRARY = ("jump", "slide", "grow", "pan")
TILE_PX, GAP_PX, LABEL_PX, SIDE_PX = 128, 6, 20, 140
# A moment to look at the end before it begins again.
HOLD_MS = 600


def main() -> None:
    """Writes the pictures into web/docs."""
    world = load_world()
    write_moving(DOCS / "one_subject.webp", ONE_SUBJECT, {"": [perform(world, name, 0) for name in ONE_SUBJECT]})
    reference = shipped.example(OF_TARGETS).reference
    write_moving(
        DOCS / "one_action.webp", ("reference", *["target"] * 5),
        {"": [reference, *[perform(world, OF_TARGETS, target) for target in range(5)]]},
    )  # fmt: skip
    strengths = {"without the weighting": MotionBias(0.0), "with it": own_bias(world.base.transformer.config)}
    cases = {name: contrary(name) for name in CONTRARY}
    write_moving(
        DOCS / "contrary.webp", [f"{name}, told {told(case)}" for name, case in cases.items()],
        {
            label: [sample_videos(world, [case], world.faes[name], bias=bias)[0] for name, case in cases.items()]
            for label, bias in strengths.items()
        },
    )  # fmt: skip
    people = [example_case(person, action) for person, action in enumerate(FOLLOWED, start=1)]
    poses = [driving(case) for case in people]
    write_moving(
        DOCS / "people.webp", [name.replace("_", " ") for name in FOLLOWED],
        {"poses": poses, "result": follow(load_actors(), people, poses)}, actors.FPS,
    )  # fmt: skip
    takes = [take_case(number) for number in range(FILMED)]
    avatars, said = [render_avatar(case.take) for case in takes], [take_caption(case.take) for case in takes]
    made = film_takes(load_small_amg(), avatars, said, [case.seed for case in takes])
    labels = [f"{case.action.replace('_', ' ')}, {case.camera}" for case in takes]
    write_moving(DOCS / "avatars.webp", labels, {"avatar": avatars, "result": made}, TAKE_FPS)


def perform(world, action: str, target: int) -> np.ndarray:
    """The video (17, 64, 64, 3) of a target that performs an action, from seed 0."""
    scene = sample_target(target, shipped.REFERENCE)
    case = Case(action, target, scene, caption(scene), 0)
    return sample_videos(world, [case], world.faes[action])[0]


def contrary(action: str) -> Case:
    """The first target under a caption that names another action."""
    return make_cases(action, SETTINGS["other_1"], 1, 1)[0]


def told(case: Case) -> str:
    """The word of the other action."""
    return (set(case.words.split()) - set(caption(case.scene).split())).pop()


def write_moving(path: Path, labels, rows: dict[str, list[np.ndarray]], fps: int = shipped.FPS) -> None:
    """Writes rows of videos (T, H, W, 3) as one moving WebP, a label over each column and before each row."""
    side = SIDE_PX if any(rows) else 0
    step = TILE_PX + GAP_PX
    count = len(next(iter(rows.values()))[0])
    pages = []
    for index in range(count):
        page = Image.new("RGB", (side + len(labels) * step, LABEL_PX + len(rows) * step), BACKGROUND)
        pen = ImageDraw.Draw(page)
        for column, label in enumerate(labels):
            pen.text((side + column * step + TILE_PX / 2, LABEL_PX / 2), label, fill=TEXT, anchor="mm", font_size=12)
        for row, (label, videos) in enumerate(rows.items()):
            top = LABEL_PX + row * step
            pen.text((6, top + TILE_PX / 2), label, fill=TEXT, anchor="lm", font_size=12)
            for column, video in enumerate(videos):
                page.paste(tile(video[index], TILE_PX, Image.Resampling.NEAREST), (side + column * step, top))
        pages.append(page)
    lasting = [round(1000 / fps)] * (count - 1) + [HOLD_MS]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=lasting, loop=0, quality=80, method=6)
    print(path.relative_to(ROOT), f"{path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    with torch.no_grad():
        main()
