"""How a model's files are laid out: weights in one file, in shards or as a variant, and configs beside them."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .downloads import UNFINISHED, existing_file, find_unfinished, guarded
from .errors import FileError

# The index of the largest models has some hundred kilobytes.
MAX_JSON_BYTES = 8_000_000
# No number of a real config is larger, and none of its lists longer.
MAX_NUMBER, MAX_LIST = 1_000_000, 64

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_INDEX = re.compile(r".+\.safetensors\.index(\.[^.]+)?\.json")


def weight_files_of(folder: Path, pickles: bool = False) -> list[Path]:
    """The .safetensors files of one part of a model, such as its transformer folder.

    pickles: a single .bin file is taken, too, where there is no other.

    An index names them; without one all shards must be there; of several variants the plain one is taken. Files that
    begin with a dot are no weights (macOS leaves such beside each file it copies to other drives).
    Raises FileError naming what is missing, not fetched, or of a kind that is not read.
    """
    part = f"{folder.parent.name}/{folder.name}"
    try:
        names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    except OSError:
        raise FileError(f"{part}: no such folder. Download the model's folder again.") from None
    indexes = sorted((name for name in names if _INDEX.fullmatch(name)), key=lambda name: name.count("."))
    chosen = _named_by_index(part, folder / indexes[0]) if indexes else _without_index(names)
    if not chosen and pickles:
        chosen = sorted((name for name in names if name.endswith(".bin")), key=lambda name: name.count("."))[:1]
    if not chosen:
        raise FileError(f"{part}: {_why_no_weights(folder, names)}")
    for name in chosen:
        _check_there(part, folder / name)
    return [folder / name for name in chosen]


def read_json(file: Path, name: str = "") -> Any:
    """What a .json file holds. Raises FileError, with its `name`, if it is missing, too large or no JSON."""
    name = name or file.name
    size = existing_file(file, name).stat().st_size
    if size > MAX_JSON_BYTES:
        raise FileError(f"{name}: {size / 1e6:.0f} MB are too much for such a file. Download it again.")
    return guarded(file, lambda: json.loads(file.read_text(encoding="utf-8-sig")), name)


def read_config(file: Path) -> dict[str, Any]:
    """The table in a model's .json file, its numbers within what a real one holds.

    Raises FileError naming the file, as MODEL/PART/FILE, if it is missing, no table, or out of bounds.
    """
    name = f"{file.parent.parent.name}/{file.parent.name}/{file.name}"
    content = _table(file, name)
    _check_bounds(name, content)
    return content


def _named_by_index(part: str, index: Path) -> list[str]:
    name = f"{part}/{index.name}"
    table = _table(index, name).get("weight_map", {})
    if not isinstance(table, Mapping) or not all(isinstance(file, str) for file in table.values()):
        raise FileError(f"{name}: no table of files in it. Download it again.")
    files = sorted(set(table.values()))
    # A model folder of somebody else must not reach out of itself.
    if any(Path(file).name != file or "\\" in file or not file.endswith(".safetensors") for file in files):
        raise FileError(f"{name}: it names files that are no .safetensors files of this folder. Download it again.")
    return files


def _without_index(names: list[str]) -> list[str]:
    files = sorted((name for name in names if name.endswith(".safetensors")), key=lambda name: name.count("."))
    whole = [name for name in files if not _SHARD.fullmatch(name)]
    if whole:
        # model.fp16.safetensors may stand beside model.safetensors.
        return whole[:1]
    sets: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in files:
        stem, _, count = _SHARD.fullmatch(name).groups()
        sets[stem, count].append(name)
    for (stem, count), shards in sets.items():
        # At most one more than is there, so that a name cannot ask for a huge list.
        expected = [f"{stem}-{i:05d}-of-{count}.safetensors" for i in range(1, min(int(count), len(shards) + 1) + 1)]
        return expected
    return []


def _why_no_weights(folder: Path, names: list[str]) -> str:
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickles:
        return (
            f"its weights are pickles ({pickles[0]}), which can run code and are not read for a base. Download the "
            ".safetensors files of the same model."
        )
    if other := [name for name in names if name.endswith((".gguf", ".onnx", ".msgpack", ".h5"))]:
        return f"its weights are of a kind that is not read here ({other[0]}). Download the .safetensors files."
    unfinished = [name for name in names if name.endswith(UNFINISHED)]
    found = unfinished[0] if unfinished else getattr(find_unfinished(folder / "*.safetensors"), "name", "")
    if found:
        return (
            f"the download of its weights is not finished ({found} lies there). Start it again; it goes on where it "
            "stopped."
        )
    return "a .safetensors file is missing. Download the folder again."


def _check_there(part: str, file: Path) -> None:
    name = f"{part}: {file.name}"
    if file.exists() or file.is_symlink() or find_unfinished(file):
        existing_file(file, name)
    else:
        raise FileError(f"{name} is missing. Download the folder again.")


def _table(file: Path, name: str) -> dict[str, Any]:
    content = read_json(file, name)
    if not isinstance(content, dict):
        raise FileError(f"{name}: a table of settings was expected, something else found. Download it again.")
    return content


def _check_bounds(name: str, value: Any, field: str = "", depth: int = 0) -> None:
    if isinstance(value, (dict, list)):
        if depth > 3 or (isinstance(value, list) and len(value) > MAX_LIST):
            raise FileError(f"{name}: {field} is no setting of this model. Download the file again.")
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_bounds(name, item, field or str(key)[:60], depth + 1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or abs(value) > MAX_NUMBER:
            raise FileError(f"{name}: {field} is beyond what a model can have. Download the file again.")
