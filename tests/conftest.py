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
# CogVideoX-5b-I2V's transformer/config.json, without what diffusers fills in.
RELEASED_CONFIG = {
    "_class_name": "CogVideoXTransformer3DModel",
    "_diffusers_version": "0.30.3",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 64,
    "dropout": 0.0,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 32,
    "max_text_seq_length": 226,
    "norm_elementwise_affine": True,
    "norm_eps": 1e-05,
    "num_attention_heads": 48,
    "num_layers": 42,
    "out_channels": 16,
    "patch_size": 2,
    "sample_frames": 49,
    "sample_height": 60,
    "sample_width": 90,
    "spatial_interpolation_scale": 1.875,
    "temporal_compression_ratio": 4,
    "temporal_interpolation_scale": 1.0,
    "text_embed_dim": 4096,
    "time_embed_dim": 512,
    "timestep_activation_fn": "silu",
    "use_learned_positional_embeddings": True,
    "use_rotary_positional_embeddings": True,
}

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


@pytest.fixture(scope="session")
def released_transformer():
    """CogVideoX-5b-I2V's transformer, with released sizes and no weights."""
    import torch
    from diffusers import CogVideoXTransformer3DModel

    with torch.device("meta"):
        return CogVideoXTransformer3DModel.from_config(RELEASED_CONFIG)
