"""Makes the pack importable in tests as ComfyUI imports it: as one package, whatever its folder is called.

`flexiact_pack` is that package: `from flexiact_pack.nodes.flexiact import FlexiActSampler`. The core is the same
modules under both of its names, `flexiact_core` and `flexiact_pack.flexiact_core`, so its classes exist once.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PACK = "flexiact_pack"

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Processes that each take every core slow each other down. Read when torch is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


class _SameCore(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers an import of flexiact_pack.flexiact_core... with the module flexiact_core..."""

    prefix = f"{PACK}.flexiact_core"

    def find_spec(self, name, path=None, target=None):
        if name == self.prefix or name.startswith(self.prefix + "."):
            return importlib.machinery.ModuleSpec(name, self)
        return None

    def create_module(self, spec):
        module = importlib.import_module(spec.name.removeprefix(f"{PACK}."))
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module):
        # The import system has put the second name's spec into the module, which loads its submodules by it.
        module.__spec__ = self.own_spec


def _put_pack_on_path() -> None:
    # ComfyUI's `nodes` module comes before this checkout's `nodes` folder.
    sys.path[:] = [path for path in sys.path if Path(path or os.getcwd()).resolve() not in (ROOT, TESTS)]
    sys.path.insert(0, str(TESTS))
    sys.path.append(str(ROOT))
    package = types.ModuleType(PACK)
    package.__path__ = [str(ROOT)]
    sys.modules[PACK] = package
    sys.meta_path.insert(0, _SameCore())


def _put_comfyui_on_path() -> None:
    from host.environment import comfyui_path

    comfyui = comfyui_path()
    if not os.path.isfile(os.path.join(comfyui, "main.py")):
        return
    sys.path.insert(1, comfyui)
    from comfy.cli_args import args

    # Its modules read these when they are first imported: tests on the CPU, and nothing written into it.
    args.cpu = True
    args.base_directory = tempfile.mkdtemp(prefix="flexiact-test-")


_put_pack_on_path()
_put_comfyui_on_path()


def pytest_unconfigure(config):
    if args := sys.modules.get("comfy.cli_args"):
        shutil.rmtree(args.args.base_directory, ignore_errors=True)


@pytest.fixture(scope="session")
def small_base(tmp_path_factory):
    """Folder of a small random base in the diffusers layout. Shared: do not write into it."""
    from small_models import make_base

    return make_base(tmp_path_factory.mktemp("base") / "small")
