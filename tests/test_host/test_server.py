"""The driver itself: what it says and leaves behind when things go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from host.environment import ROOT
from host.server import ComfyServer, HostError

pytestmark = pytest.mark.xdist_group("host")


def test_a_server_that_does_not_start_says_why(tmp_path):
    server = ComfyServer(tmp_path, "--cpu", "--no-such-flag")
    with pytest.raises(HostError, match="(?s)exit status 2.*--no-such-flag"):
        server.start()
    server.stop()


def test_the_server_ends_with_the_process_that_started_it(tmp_path):
    driver = subprocess.Popen(
        [sys.executable, "-c",
         "import sys, time; from pathlib import Path; from tests.host.server import ComfyServer\n"
         "server = ComfyServer(Path(sys.argv[1])); server._wait_until_ready = lambda _: None; server.start()\n"
         "print(server.process.pid, flush=True); time.sleep(60)", str(tmp_path)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    server_id = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 30
    while _is_running(server_id) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_running(server_id)


def _is_running(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    stat = f"/proc/{process_id}/stat"
    # A dead child that nobody has waited for still has an id.
    return not os.path.exists(stat) or open(stat).read().rsplit(")", 1)[1].split()[0] != "Z"
