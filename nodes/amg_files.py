"""What models/amg holds: models, adapters, text encoder and VAE, and the embedding of no words."""

from __future__ import annotations

import os
from pathlib import Path

from .host import folders

FILES = folders.ModelFolder("amg")

# Spelt so in the released files; and as diffusers spells it.
MODEL_WORDS = (b"temopral_conv", b"temp_convs")
ADAPTER_WORDS = b"amg adapter"
CHECKPOINT_WORDS = b"first_stage_model."
AUTO = "auto"


def find_models() -> dict[str, Path]:
    """Files and diffusers folders in models/amg with a video UNet, by name."""
    files = {name: path for words in MODEL_WORDS for name, path in folders.find_files(FILES, words).items()}
    # A diffusers folder is one choice, not its files.
    whole = _find_folders("unet")
    inside = {path for folder in whole.values() for path in folder.rglob("*")}
    adapters = find_adapters()
    files = {name: path for name, path in files.items() if path not in inside and name not in adapters}
    return dict(sorted({**files, **whole}.items()))


def find_adapters() -> dict[str, Path]:
    """Adapter files in models/amg, by name."""
    files = folders.find_files(FILES, ADAPTER_WORDS)
    return {name: path for name, path in files.items() if path.suffix == ".safetensors"}


def find_components() -> dict[str, Path]:
    """Diffusers folders and checkpoints in models/amg that give text encoder and VAE, by name; not the shipped model's,
    which fit that model alone."""
    files = folders.find_files(FILES, CHECKPOINT_WORDS)
    whole = {name: path for name, path in _find_folders("vae").items() if not folders.is_shipped(path)}
    return {**whole, **{name: path for name, path in files.items() if name not in find_models()}}


def find_tensors() -> dict[str, Path]:
    """Small pickles in models/amg, which may hold one tensor, by name."""
    files = folders.find_files(FILES)
    return {name: path for name, path in files.items() if path.suffix == ".pt" and path.stat().st_size < 10_000_000}


def _find_folders(part: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in FILES.roots():
        for folder, subfolders, _ in os.walk(root, followlinks=True):
            if part in subfolders and (Path(folder) / part / "config.json").is_file() and Path(folder) != root:
                found.setdefault(Path(folder).relative_to(root).as_posix(), Path(folder))
                subfolders.clear()
    return found


def components_of(source: Path, name: str) -> Path | None:
    """Where text encoder and VAE of a model come from; None for auto where nothing is there, or too much."""
    from ..flexiact_core.amg.loading import has_components

    if name != AUTO:
        return folders.path_of(name, find_components(), FILES.missing(name))
    if has_components(source):
        return source
    found = find_components()
    return next(iter(found.values())) if len(found) == 1 else None
