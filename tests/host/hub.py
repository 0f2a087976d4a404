"""A server on this machine that speaks as much of the hub's protocol as fetching a file takes, and can misbehave."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the hub holds and how it misbehaves; each of its tricks is played once for a file.

    content is a file's bytes by 'models/OWNER/NAME' or 'datasets/OWNER/NAME' and the file's name. cut names files whose
    first answer ends in the middle, lie files whose size is announced wrongly in the first list, change files whose
    first answer holds other bytes. asked is what was asked for, in order: path and Range.
    """

    content: dict[str, dict[str, bytes]]
    cut: set[str] = field(default_factory=set)
    lie: set[str] = field(default_factory=set)
    change: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def siblings(self, repository: str) -> list[dict]:
        """The files of a repository as the hub lists them."""
        listed = []
        for name, content in self.content[repository].items():
            size = len(content) + (7 if name in self.lie else 0)
            self.lie.discard(name)
            large = {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 1}}
            listed.append({"rfilename": name, "size": size} | (large if name.endswith((".safetensors", ".pt")) else {}))
        return listed


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Answers for `hub` at hub.url until the block is left."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def folder_content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name relative to it."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append((path, self.headers.get("Range", "")))
        if listed := re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)(/revision/[^/]+)?", path):
            self._list(listed[1])
        elif file := re.fullmatch(rf"/(datasets/)?([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", path):
            self._send(f"{file[1] or 'models/'}{file[2]}", file[3])
        else:
            self._answer(404, b"")

    def log_message(self, *_) -> None:
        pass

    def _list(self, repository: str) -> None:
        if repository not in self.hub.content:
            return self._answer(404, b"{}")
        about = {"id": repository.partition("/")[2], "sha": COMMIT, "siblings": self.hub.siblings(repository)}
        self._answer(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _send(self, repository: str, name: str) -> None:
        content = self.hub.content[repository][name]
        if name in self.hub.change:
            self.hub.change.discard(name)
            content = content[::-1]
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or (0, 0))[1])
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        if start and start >= len(content):
            return self._answer(416, b"")
        rest = content[start:]
        if name in self.hub.cut:
            self.hub.cut.discard(name)
            self._answer(206 if start else 200, rest[: len(rest) // 2], headers, len(rest))
            self.close_connection = True
        else:
            self._answer(206 if start else 200, rest, headers)

    def _answer(self, status: int, body: bytes, headers: dict | None = None, length: int | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body) if length is None else length), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
