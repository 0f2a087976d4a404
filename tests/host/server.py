"""A real ComfyUI with this pack inside, driven over its HTTP API.

The server gets a base directory of its own: models, input, output, user data and custom_nodes live
there, so a ComfyUI checkout that belongs to somebody is read and never written to.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .environment import CACHE, ROOT, comfyui_path

PACK_FOLDER = "ComfyUI-FlexiAct"
# Kinds of binary messages, from ComfyUI's protocol.py.
_TEXT, _PREVIEW_WITH_METADATA = 3, 4
# The child ends itself when this process is gone, however it went: its stdin then reads as closed.
_RUN_MAIN = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class HostError(Exception):
    """The server did not start, died, or refused or failed a prompt; the message carries its words."""


@dataclass
class Run:
    """What became of one queued prompt."""

    prompt_id: str
    status: str = "unknown"  # "success", "error" or "interrupted"
    error: str = ""
    steps: list[tuple[str, int, int]] = field(default_factory=list)  # (node id, value, maximum) as reported
    previews: list[bytes] = field(default_factory=list)  # encoded pictures
    texts: list[str] = field(default_factory=list)  # lines that nodes have shown
    cached: list[str] = field(default_factory=list)  # ids of nodes that were not executed again
    outputs: dict[str, dict] = field(default_factory=dict)  # node id -> what the node showed in the UI
    seconds: float = 0.0


def make_base(folder: Path) -> Path:
    """`folder` as a ComfyUI base directory that has this checkout as its only custom node pack."""
    for name in (
        "custom_nodes",
        "input",
        "output",
        "temp",
        "user",
        "models/CogVideo",
        "models/flexiact/fae",
        "models/flexiact/refadapter",
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
    link = folder / "custom_nodes" / PACK_FOLDER
    if not link.exists():
        link.symlink_to(ROOT, target_is_directory=True)
    return folder


class ComfyServer:
    """A ComfyUI process; use it in a `with` statement, which also stops it on an error or Ctrl-C."""

    def __init__(self, base: Path, *arguments: str, comfyui: str | None = None, environment: dict | None = None):
        self.base = make_base(Path(base).resolve())
        self.comfyui = comfyui or comfyui_path()
        self.arguments = arguments or ("--cpu",)
        self.environment = environment or {}
        self.log_path = self.base / "server.log"
        self.process: subprocess.Popen | None = None
        self.url = ""
        # 127.0.0.1 is never asked for through a proxy.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self, timeout_seconds: float = 240) -> None:
        """Waits until the server answers. Raises HostError with the end of its log if it does not."""
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            sys.executable, "-c", _RUN_MAIN, os.path.join(self.comfyui, "main.py"), *self.arguments,
            "--port", str(port), "--base-directory", str(self.base),
            "--database-url", f"sqlite:///{self.base / 'user' / 'comfyui.db'}",
            "--disable-auto-launch", "--disable-api-nodes", "--preview-method", "latent2rgb",
        ]  # fmt: skip
        if frontend := os.environ.get("FLEXIACT_FRONTEND"):
            command += ["--front-end-root", frontend]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, cwd=self.base,
                env=self._environment(),
            )  # fmt: skip
        try:
            self._wait_until_ready(timeout_seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends it; the process is gone afterwards. Harmless when it never ran."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process = None

    def log(self) -> str:
        """Everything the server has printed so far."""
        return re.sub(r"\x1b\[\d+m", "", self.log_path.read_text(errors="replace"))

    def get(self, path: str) -> dict:
        """The JSON answer to a GET. Raises HostError if there is none."""
        return self._request(path)

    def post(self, path: str, body: dict) -> dict:
        """The JSON answer to a POST, {} for an empty one. Raises HostError with the server's words on refusal."""
        return self._request(path, json.dumps(body).encode())

    def object_info(self) -> dict:
        """Every node type the server knows, by id."""
        return self.get("/object_info")

    def interrupt(self) -> None:
        """Interrupts: what is being executed ends at the node's next check, as with the Cancel button."""
        self.post("/interrupt", {})

    def run(
        self,
        prompt: dict,
        on_step: Callable[[str, int, int], None] | None = None,
        timeout_seconds: float = 900,
        check: bool = True,
        extra_data: dict | None = None,
    ) -> Run:
        """What became of `prompt` (API format), once it has ended.

        on_step(node id, value, maximum) is called as progress arrives; it may call `interrupt`.
        Raises HostError if the prompt is refused or times out and, unless `check` is false, if it fails.
        """
        run = asyncio.run(self._follow(prompt, on_step, timeout_seconds, extra_data or {}))
        history = self.get(f"/history/{run.prompt_id}").get(run.prompt_id, {})
        run.outputs = history.get("outputs", {})
        if check and run.status != "success":
            raise HostError(f"The prompt ended as {run.status!r}. {run.error}\n\n{self._log_tail()}")
        return run

    def output_files(self, run: Run) -> list[Path]:
        """The files that the output nodes of `run` saved, on disk, in the order of their nodes."""
        folders = {"output": self.base / "output", "temp": self.base / "temp"}
        return [
            folders[item["type"]] / item["subfolder"] / item["filename"]
            for shown in run.outputs.values()
            for items in shown.values()
            if isinstance(items, list)
            for item in items
            if isinstance(item, dict) and item.get("type") in folders
        ]

    def import_errors(self) -> list[str]:
        """The log lines that say a custom node pack, or a node of one, could not be loaded."""
        signs = (
            "IMPORT FAILED",
            "Cannot import",
            "Error while calling comfy_entrypoint",
            "comfy_entrypoint in",
            "due to the lack of NODE_CLASS_MAPPINGS",
            "Unable to parse pyproject.toml",
        )
        return [line for line in self.log().splitlines() if any(sign in line for sign in signs)]

    async def _follow(self, prompt, on_step, timeout_seconds, extra_data) -> Run:
        import aiohttp  # not needed to import this module

        client_id = uuid.uuid4().hex
        started = time.monotonic()
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{self.url}/ws?clientId={client_id}", max_msg_size=0) as socket_:
                # Previews go to clients that say they can read them, as the browser does in its first message.
                await socket_.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
                body = {"prompt": prompt, "client_id": client_id, "extra_data": extra_data}
                run = Run(self.post("/prompt", body)["prompt_id"])
                while True:
                    if time.monotonic() - started > timeout_seconds:
                        self.interrupt()
                        raise HostError(f"Not finished after {timeout_seconds:.0f} s.\n\n{self._log_tail()}")
                    try:
                        message = await socket_.receive(timeout=1)
                    except asyncio.TimeoutError:  # noqa: UP041 - two classes until Python 3.11
                        self._raise_if_dead()
                        continue
                    if message.type == aiohttp.WSMsgType.BINARY:
                        _take_binary(message.data, run)
                    elif message.type != aiohttp.WSMsgType.TEXT:
                        self._raise_if_dead(wait_seconds=5)
                        raise HostError(f"The server closed the connection.\n\n{self._log_tail()}")
                    elif _take(json.loads(message.data), run, on_step):
                        run.seconds = time.monotonic() - started
                        return run

    def _wait_until_ready(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._raise_if_dead()
            try:
                self.get("/system_stats")
                return
            except HostError:
                if time.monotonic() > deadline:
                    message = f"ComfyUI did not answer within {timeout_seconds:.0f} s.\n\n{self._log_tail()}"
                    raise HostError(message) from None
                time.sleep(0.25)

    def _raise_if_dead(self, wait_seconds: float = 0) -> None:
        deadline = time.monotonic() + wait_seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.process.poll() is not None:
            raise HostError(f"ComfyUI ended with exit status {self.process.returncode}.\n\n{self._log_tail()}")

    def _request(self, path: str, body: bytes | None = None) -> dict:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=60) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise HostError(f"{path}: {error.code}\n{_explain(error.read())}") from None
        except OSError as error:
            raise HostError(f"{path}: {error}") from None
        return json.loads(content) if content else {}

    def _log_tail(self) -> str:
        lines = self.log().splitlines()[-25:]
        return "\n".join([f"The end of {self.log_path}:", *lines])

    def _environment(self) -> dict[str, str]:
        outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        if not os.path.realpath(self.comfyui).startswith(os.path.realpath(CACHE)):
            quiet["PYTHONDONTWRITEBYTECODE"] = "1"
        return {**outside, **quiet, **self.environment}


def _take(message: dict, run: Run, on_step) -> bool:
    """Whether `message` is the last one about `run`, after entering it into `run`."""
    kind, data = message.get("type"), message.get("data") or {}
    if data.get("prompt_id") != run.prompt_id:
        return False
    if kind == "progress_state":
        for node_id, state in data["nodes"].items():
            step = (node_id, int(state["value"]), int(state["max"]))
            if state["state"] == "running" and step[1] > 0 and step not in run.steps:
                run.steps.append(step)
                if on_step is not None:
                    on_step(*step)
    elif kind == "execution_cached":
        run.cached = list(data.get("nodes", []))
    elif kind == "execution_success":
        run.status = "success"
    elif kind == "execution_interrupted":
        run.status = "interrupted"
    elif kind == "execution_error":
        run.status = "error"
        run.error = f"{data.get('node_type')}: {data.get('exception_message', '').strip()}"
    return kind == "executing" and data.get("node") is None


def _take_binary(data: bytes, run: Run) -> None:
    """Enters a line of text or a preview into `run`: (kind, length, header of that length, content)."""
    kind, length = struct.unpack(">II", data[:8])
    if kind == _TEXT:
        run.texts.append(data[8 + length :].decode(errors="replace"))
    elif kind == _PREVIEW_WITH_METADATA:
        run.previews.append(data[8 + length :])


def _explain(body: bytes) -> str:
    """The server's refusal of a prompt, one line per fault."""
    try:
        answer = json.loads(body)
        lines = [answer["error"]["message"] + ": " + answer["error"].get("details", "")]
        for node_id, node in answer.get("node_errors", {}).items():
            lines += [f"  {node.get('class_type')} (node {node_id}): {e['message']}: {e['details']}"
                      for e in node["errors"]]  # fmt: skip
        return "\n".join(lines)
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:2000]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
