"""Where files lie: ComfyUI's model folders and input folder, what is listed in them, and where results go."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ...flexiact_core import training_files
from ...flexiact_core.errors import FileError
from ...flexiact_core.file_lists import mentions, walk_files

logger = logging.getLogger("flexiact")

# A list without an entry could not be queued, and so could not say what is missing.
NONE_FOUND = "none found"

PACK = Path(__file__).parent.parent.parent
_WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True)
class ModelFolder:
    """A kind of model folder: its name under models/, and the command that fetches what is released for it.

    name is also the key in extra_model_paths.yaml; it may be one that ComfyUI has already, such as vae. download is the
    command, with {folder} for the place, and empty where nothing is released; released says what it fetches. named are
    other releases, as pairs of the name that each has there and its command.
    """

    name: str
    download: str = ""
    released: str = "the released files"
    named: tuple[tuple[str, str], ...] = ()

    def command(self, folder: str | Path | None = None, name: str | None = None) -> str:
        """The command that fetches the released files into a folder; without one, into models/NAME.

        name chooses one of `named`, by how it begins.
        """
        given = next((one for start, one in self.named if (name or "").startswith(start)), self.download)
        return given.format(folder=folder or f"models/{self.name}")

    def roots(self) -> list[Path]:
        """All folders of this kind that ComfyUI knows, also by extra_model_paths.yaml; results go to the first."""
        return [Path(root) for root in folder_paths.get_folder_paths(self.name)]

    def missing(self, name: str | None) -> str:
        """The sentence for a file or folder that is not there."""
        # Where on the machine that folder lies is nothing for whoever looks at ComfyUI from another one.
        by_hand = f"let Get Released Models fetch {self.released}, or do it by hand: {self.command(name=name)}"
        way_out = by_hand if self.download else "put it there."
        return f"'{name}' is not in models/{self.name}. Choose another from the list, or {way_out}"


def register_folders(kinds: Iterable[ModelFolder], shipped: Path) -> None:
    """Makes model folders known to ComfyUI, beside what extra_model_paths.yaml names.

    The folders of the same names in `shipped`, which come with the pack, are last: what a user has under the same name
    goes first. A kind that ComfyUI has already keeps its folders.
    """
    for kind in kinds:
        folder_paths.add_model_folder_path(kind.name, os.path.join(folder_paths.models_dir, kind.name))
        if (shipped / kind.name).is_dir():
            folder_paths.add_model_folder_path(kind.name, str(shipped / kind.name))


def put_inputs(shipped: Path) -> None:
    """Puts copies of the files in `shipped` into ComfyUI's input folder, for workflows that begin with them.

    What lies there under such a name stays as it is. Never raises: without them a workflow shows what it misses.
    """
    for file in sorted(shipped.iterdir()) if shipped.is_dir() else ():
        target = Path(folder_paths.get_input_directory()) / file.name
        try:
            if not target.exists():
                shutil.copyfile(file, target)
        except OSError as error:
            logger.warning("FlexiAct: %s was not put into the input folder: %s", file.name, error.strerror)


def find_files(kind: ModelFolder, words: bytes = b"") -> dict[str, Path]:
    """Weight files of a model folder by their names relative to it, sorted; those whose keys hold these words.

    What trainings keep for themselves is left out. Never raises: a file that cannot be looked into is among them, and
    opening it says what is wrong.
    """
    found: dict[str, Path] = {}
    for root in kind.roots():
        for folder, _, files in walk_files(root, leave_out=(training_files.TRAINING_FOLDER,)):
            prefix = "" if folder == root else folder.relative_to(root).as_posix() + "/"
            for file in files:
                if file.name.endswith(_WEIGHT_SUFFIXES):
                    found.setdefault(prefix + file.name, file)
    return {name: path for name, path in sorted(found.items()) if not words or mentions(path, words)}


def is_shipped(path: Path) -> bool:
    """Whether a file or folder comes with the pack."""
    return path.is_relative_to(PACK)


def listed(names: Iterable[str]) -> list[str]:
    """Options of a combo: the names, or the one that says that there are none."""
    return list(names) or [NONE_FOUND]


def path_of(name: str | None, found: dict[str, Path], missing: str) -> Path:
    """The path of a name among those found. Raises FileError with the sentence `missing` if it is not there.

    A name may come over a link, where no list is asked, and its file may be gone by the time the node runs.
    """
    if name not in found:
        raise FileError(missing)
    return found[name]


def check_listed(name: str | None, found: dict[str, Path], missing: str) -> bool | str:
    """For validate_inputs: True, or the sentence `missing`. A name that comes over a link (None) is not known yet."""
    return True if name is None or name in found else missing


def weights_path(kind: ModelFolder, name: str | None) -> Path:
    """Where a weight file of a model folder lies. Raises FileError with the sentence if it is not there."""
    return path_of(name, find_files(kind), kind.missing(name))


def check_weights(kind: ModelFolder, name: str | None) -> bool | str:
    """For validate_inputs: True, or the sentence for a weight file that is missing."""
    return check_listed(name, find_files(kind), kind.missing(name))


def result_path(kind: ModelFolder, folder: str, name: str, training: str) -> Path:
    """Where a training's result is saved: FOLDER/NAME.safetensors, with a number if anything else has that name."""
    return training_files.result_path(kind.roots()[0], folder, name, training)


def training_path(kind: ModelFolder, name: str, training: str) -> Path:
    """Where the checkpoint of a training lies; trainings that differ in any setting have different ones."""
    return training_files.checkpoint_path(kind.roots()[0], name, training)


def training_folder(kind: ModelFolder) -> Path:
    """Where checkpoints of trainings lie, and what is kept for a training that is resumed."""
    return kind.roots()[0] / training_files.TRAINING_FOLDER


def samples_folder(name: str, training: str) -> Path:
    """Where the sample videos of a training are kept: in ComfyUI's output folder, one folder for each training."""
    folder = f"{training_files.plain_name(name)}-{training[:12]}"
    return Path(folder_paths.get_output_directory()) / "flexiact" / folder


def shown(path: Path) -> str:
    """A place on disk as messages name it: inside its model folder, without where that lies.

    Who reads a message may sit at another machine, and is not told what this one's folders are called.
    """
    roots = [(Path(root), name) for name in folder_paths.folder_names_and_paths for root in _roots(name)]
    inside = [(root, name) for root, name in roots if path.is_relative_to(root)]
    if not inside:
        return path.name
    root, name = max(inside, key=lambda found: len(found[0].parts))
    return (Path("models") / name / path.relative_to(root)).as_posix()


def input_path(name: str) -> Path:
    """A file or folder in ComfyUI's input folder, or with its full path in a model folder. Whether it is there, is not
    asked. Raises FileError for any other place."""
    return input_file(name)[0]


def input_file(name: str) -> tuple[Path, Path]:
    """As input_path(), and the folder, of those that may be read, that it lies in.

    Whoever may queue a prompt names these files, and may sit at another machine; which folders there are is up to the
    owner of this one, by ComfyUI's --input-directory and extra_model_paths.yaml.
    """
    roots = [folder_paths.get_input_directory()]
    for kind in folder_paths.folder_names_and_paths:
        roots += _roots(kind) if kind != "custom_nodes" else []
    path = Path(os.path.normpath(os.path.join(os.path.abspath(roots[0]), name.strip())))
    for root in (Path(os.path.abspath(root)) for root in roots):
        if "\0" not in name and path.is_relative_to(root):
            return path, root
    raise FileError(
        f"{path.name[:100]}: only files in ComfyUI's input folder and in model folders are read. Put it there; the "
        "machine's owner can name further model folders in extra_model_paths.yaml."
    )


def input_state(name: str | None) -> str:
    """As files_state(), of what input_path() gives; '' for a name that is empty or not known yet."""
    if not name or not name.strip():
        return ""
    try:
        return files_state(input_path(name))
    except FileError:
        return ""


def files_state(*paths: Path | None) -> str:
    """For fingerprint_inputs: another value when one of these files, or any in these folders, has changed.

    Never raises: what is not there has a value, too.
    """
    contents = hashlib.sha256()
    for path in filter(None, paths):
        files = [file for _, _, files in walk_files(path) for file in files] if os.path.isdir(path) else [path]
        for file in files:
            contents.update(f"{file}|{_stamp(file)}|".encode(errors="replace"))
    return contents.hexdigest()


def digest(identity: dict) -> str:
    """A short name for a set of settings: equal sets, equal names."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def t5_vocabulary() -> Path:
    """The folder of T5's vocabulary that comes with ComfyUI, for a base without a tokenizer of its own."""
    import comfy.model_management

    return Path(comfy.model_management.__file__).parent / "text_encoders" / "t5_tokenizer"


def pack_version() -> str:
    """The version in pyproject.toml, the only place that holds it."""
    text = (PACK / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^version = "(.+)"', text, re.MULTILINE)[1]


def _roots(name: str) -> list[str]:
    return folder_paths.folder_names_and_paths[name][0]


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns
