"""What Get Released Models does: asks the hub what there is, fetches what is missing, and shows nothing half done."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..flexiact_core.errors import FileError, FlexiActError
from .host import progress
from .released_list import Release

logger = logging.getLogger("flexiact")

GB = 1e9
UNFINISHED = ".incomplete"
_HASHED_AT_ONCE = 1 << 24
# What a disk is left with.
SPARE_BYTES = 1_000_000_000


@dataclass(frozen=True)
class RemoteFile:
    """A file at the hub, and the place that it goes to. digest is its SHA-256 where the hub says it, else empty."""

    name: str
    size: int
    digest: str
    url: str
    target: Path

    @property
    def partial(self) -> Path:
        """What has come of it so far; fetching goes on there."""
        return self.target.with_name(self.target.name + UNFINISHED)

    def to_come(self) -> int:
        """Bytes that are not here yet."""
        return self.size - (min(self.partial.stat().st_size, self.size) if self.partial.exists() else 0)


def describe(releases: Iterable[Release]) -> str:
    """What would be fetched from where, and how much of it is here; nothing is asked of the network."""
    lines = []
    for release in releases:
        files = [file for folder in release.folders() for file in folder.rglob("*") if file.is_file()]
        left = [file for file in files if file.name.endswith(UNFINISHED)]
        size = sum(file.stat().st_size for file in files) / GB
        here = f"{len(files) - len(left)} files are there, {size:.1f} GB" if files else "nothing is there yet"
        # RefAdapter's own folder is the folder of all that is learned.
        lines.append(
            f"{release.repository} to {release.place}: {', '.join(filter(None, (release.size, here)))}"
            f"{', a download is not finished' if left else ''}. Page and licence: {release.page}"
        )
    return "Off: nothing was fetched. Switch 'download' on to fetch\n" + "\n".join(lines)


def fetch(releases: Iterable[Release]) -> str:
    """Fetches what is missing of these releases, and says what was done.

    A file appears under its name only when it is whole: its size, and its SHA-256 where the hub says it, are as the
    hub lists them. A file that is there is kept. What was cut short goes on where it stopped.
    Raises FileError if the hub cannot be reached, the disk is too small or a file is not as listed, and ComfyUI's
    interrupt at Cancel.
    """
    found = [file for release in releases for file in _guarded(release.page, list_files, release)]
    missing = [file for file in found if not file.target.exists()]
    odd = [file.name for file in found if file.target.exists() and file.target.stat().st_size != file.size]
    _check_disk(missing)
    bar = _Bar(sum(file.to_come() for file in missing))
    for place, file in enumerate(missing, 1):
        bar.name = f"file {place}/{len(missing)}: {file.target.name}"
        _guarded(file.name, fetch_file, file, bar)
    kept = f" Kept, though their sizes are not the released ones: {', '.join(odd)}." if odd else ""
    size = sum(file.size for file in missing) / GB
    done = f"{len(missing)} files fetched, {size:.1f} GB" if missing else "Everything is there"
    return f"{done}; {len(found) - len(missing)} were there already.{kept} The lists show them now."


def list_files(release: Release) -> list[RemoteFile]:
    """The files of a release as the hub lists them, all of one version, each with the place it goes to."""
    hub = _hub()
    kind = "dataset" if release.dataset else "model"
    info = hub.HfApi(token=False).repo_info(release.repository, repo_type=kind, files_metadata=True)
    sizes = {one.rfilename: one for one in info.siblings or []}
    names = release.wanted(sizes)
    if not names:
        raise FileError(f"{release.page} lists none of the files that were released there. Look at the page.")
    found = []
    for name in names:
        if sizes[name].size is None:
            raise FileError(f"{release.page} does not say how large {name} is. Try again later.")
        there = [folder / name for folder in release.folders() if (folder / name).exists()]
        found.append(
            RemoteFile(
                name, sizes[name].size, (sizes[name].lfs or {}).get("sha256") or "",
                hub.hf_hub_url(release.repository, name, repo_type=kind, revision=info.sha),
                there[0] if there else release.folders()[0] / name,
            )
        )  # fmt: skip
    return found


def fetch_file(file: RemoteFile, watch: Callable[[int], None]) -> None:
    """Fetches one file, from where an earlier try stopped; watch is called with every number of bytes that come.

    Raises FileError if what came is not as listed; it is then gone, and the next try begins anew.
    """
    from huggingface_hub import file_download
    from huggingface_hub.utils import build_hf_headers

    file.target.parent.mkdir(parents=True, exist_ok=True)
    # Sizes are those of the files themselves, not of what a server makes of them on the way.
    headers = build_hf_headers(token=False) | {"Accept-Encoding": "identity"}
    if file.to_come() or not file.partial.exists():
        with _Watched(file.partial, watch) as opened:
            done = opened.seek(0, os.SEEK_END)
            file_download.http_get(file.url, opened, resume_size=done, headers=headers)
    _check_arrived(file)
    os.replace(file.partial, file.target)


def _check_arrived(file: RemoteFile) -> None:
    size = file.partial.stat().st_size
    if size != file.size:
        file.partial.unlink()
        raise FileError(
            f"{file.name}: {size:,} bytes came, {file.size:,} were announced. Nothing of it was kept. Run this node "
            "again; if it stays so, fetch the file from its page."
        )
    if file.digest and _digest(file.partial) != file.digest:
        file.partial.unlink()
        raise FileError(
            f"{file.name}: what came is not what was released (its SHA-256 is another). Nothing of it was kept. Run "
            "this node again."
        )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(_HASHED_AT_ONCE):
            progress.stop_if_cancelled()
            digest.update(block)
    return digest.hexdigest()


class _Watched(io.FileIO):
    """A file that is written on at its end, and says how much was written."""

    def __init__(self, path: Path, watch: Callable[[int], None]):
        super().__init__(path, "r+" if path.exists() else "w+")
        self.watch = watch

    def write(self, chunk: bytes) -> int:
        """Writes all of it. Raises ComfyUI's interrupt if the user has pressed Cancel."""
        progress.stop_if_cancelled()
        rest = memoryview(chunk)
        while rest:
            rest = rest[super().write(rest) :]
        self.watch(len(chunk))
        return len(chunk)


class _Bar:
    """How far all files together are: the node's bar, and a line with speed and time left."""

    def __init__(self, total: int):
        self.total, self.done, self.name = total, 0, ""
        self.bar, self.started, self.shown = progress.Progress(1000), time.monotonic(), 0.0

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.shown < 0.5 and self.done < self.total:
            return
        self.shown = now
        self.bar.step(min(1000, 1000 * self.done // max(1, self.total)))
        speed = self.done / max(1e-3, now - self.started)
        left = progress.in_words(max(0, self.total - self.done) / max(1, speed))
        progress.show(f"{self.name}  {self.done / GB:.2f} of {self.total / GB:.2f} GB  {left} left")


def _check_disk(missing: list[RemoteFile]) -> None:
    """Raises FileError if one of the disks that the files go to has no room for them."""
    needed: dict[int, tuple[Path, int]] = {}
    for file in missing:
        folder = next(parent for parent in file.target.parents if parent.exists())
        device = folder.stat().st_dev
        needed[device] = folder, needed.get(device, (folder, 0))[1] + file.to_come()
    for folder, size in needed.values():
        free = shutil.disk_usage(folder).free - SPARE_BYTES
        if size > free:
            raise FileError(
                f"{size / GB:.1f} GB are to come, and the disk of {folder.name} has room for "
                f"{max(0, free) / GB:.1f} GB. Make room, or name a model folder on another disk in "
                "extra_model_paths.yaml."
            )


def _hub():
    try:
        import huggingface_hub
    except ImportError:
        raise FileError(
            "The package huggingface_hub is not installed, which fetches files: pip install huggingface_hub"
        ) from None
    return huggingface_hub


def _guarded(what: str, run: Callable, *given):
    """What run(*given) gives; whatever the way to the hub throws becomes a sentence."""
    try:
        return run(*given)
    except (FlexiActError, progress.interrupt()):
        raise
    except OSError as error:
        if error.strerror and type(error).__module__ == "builtins":
            raise FileError(f"{what}: it cannot be written ({error.strerror}).") from error
        raise FileError(_unreachable(what, error)) from error
    except Exception as error:
        raise FileError(_unreachable(what, error)) from error


def _unreachable(what: str, error: Exception) -> str:
    logger.info("%s: %s", what, error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    why = f"the server answered {status}" if status else type(error).__name__
    return f"{what}: could not be fetched ({why}). What came so far is kept; run this node again to go on."
