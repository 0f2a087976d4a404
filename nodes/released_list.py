"""What Get Released Models can fetch: a fixed list. Each address stands on a public page; docs/models.md names it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from .cogvideox import BASES
from .flexiact import FILES
from .host.folders import ModelFolder

DIFFUSERS = (
    "model_index.json", "transformer/*", "vae/*", "text_encoder/*", "tokenizer/*", "scheduler/*", "LICENSE*",
)  # fmt: skip
# Nothing that a program could be started from is ever fetched.
ENDINGS = (
    ".safetensors", ".pt", ".json", ".model", ".txt", ".md", ".csv", ".mp4", ".jpg", ".jpeg", ".png", ".webp", "",
)  # fmt: skip


@dataclass(frozen=True)
class Release:
    """A repository at the hub, the part of it that is fetched, and where it goes.

    only are patterns of the files' names in it. folder is inside the model folder `kind`, itself if empty; the files
    keep their names below it. size says how much it is, empty where no page says it.
    """

    repository: str
    kind: ModelFolder
    folder: str
    only: tuple[str, ...] = ("*",)
    dataset: bool = False
    size: str = ""

    @property
    def page(self) -> str:
        """The page that people read."""
        return f"https://huggingface.co/{'datasets/' if self.dataset else ''}{self.repository}"

    @property
    def place(self) -> str:
        """Where it goes, as people say it."""
        return "/".join(filter(None, ("models", self.kind.name, self.folder)))

    def folders(self) -> list[Path]:
        """Everywhere its files may lie already; new ones go into the first."""
        return [root / self.folder for root in self.kind.roots()]

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Those of a repository's file names that are fetched, sorted."""
        return sorted(name for name in names if _is_safe(name) and any(fnmatchcase(name, one) for one in self.only))


BASE = Release("zai-org/CogVideoX-5b-I2V", BASES, "CogVideoX-5b-I2V", DIFFUSERS, size="about 22 GB")
FLEXIACT = Release("shiyi0408/FlexiAct", FILES, "", ("ckpts/*",))
DYNAMICTRL = Release("gulucaptain/DynamiCtrl", BASES, "DynamiCtrl", DIFFUSERS)


def _mask(which: str) -> Release:
    """DynamiCtrl's transformer trained with a part of the picture blacked out; the rest is DynamiCtrl's own."""
    return Release(f"gulucaptain/Dynamictrl-Mask_{which}", BASES, f"DynamiCtrl-Mask_{which}", DIFFUSERS)


# What the node offers, by the name in its list; the names are saved in workflows.
RELEASES: Mapping[str, tuple[Release, ...]] = {
    "FlexiAct, all it needs": (BASE, FLEXIACT),
    "CogVideoX-5B-I2V, the base": (BASE,),
    "RefAdapter and actions": (FLEXIACT,),
    "FlexiAct's data": (Release("shiyi0408/FlexiAct", FILES, "benchmark", dataset=True),),
    "DynamiCtrl": (DYNAMICTRL,),
    "DynamiCtrl Mask B01 (background)": (DYNAMICTRL, _mask("B01")),
    "DynamiCtrl Mask C01 (clothes)": (DYNAMICTRL, _mask("C01")),
}


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name
    return inside and not any(part.startswith(".") for part in path.parts) and path.suffix.lower() in ENDINGS
