"""A folder laid out as the released CogVideoX-5B-I2V, with the released files of FlexiAct, all weights random.

Sizes, names, shards, formats and configs are the released ones: 21 GB on the disk, written with 6 GB of memory.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.sizes import FULL, make_text_encoder, make_transformer, make_vae
from flexiact_core.flexiact.fae import TOKEN_KEY
from flexiact_core.flexiact.refadapter import refadapter_shapes

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from small_models import RELEASED_SETTINGS, RELEASED_VALUES, SCHEDULER, write_json, write_tokenizer  # noqa: E402

NAME = "CogVideoX-5b-I2V"
ADAPTER = "ckpts/refnetlora_step40000_model.pt"
ACTION = "ckpts/FAE/motion_ckpts/Dance.pt"

SHARD_BYTES = 4_990_000_000
# Of random numbers so many are made, and repeated: what they are makes no difference here.
BLOCK = 1 << 20


def write_base(models: Path) -> Path:
    """The folder models/CogVideo/CogVideoX-5b-I2V, written: transformer in 3 shards, text encoder in 2, VAE in one."""
    folder, meta, half = models / "CogVideo" / NAME, torch.device("meta"), torch.bfloat16
    makers = {"transformer": make_transformer, "vae": make_vae, "text_encoder": make_text_encoder}
    for part, make in makers.items():
        module = make(FULL, meta, half)
        config = module.config.to_dict() if part == "text_encoder" else dict(module.config)
        config = {"_class_name": type(module).__name__, "architectures": [type(module).__name__]} | config
        config = {key: config.get(key) for key in RELEASED_SETTINGS[part].split()} | RELEASED_VALUES[part]
        write_json(folder / part / "config.json", config)
        shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        shapes.pop("encoder.embed_tokens.weight", None)  # the released file has this matrix under its other name
        _write_shards(shapes, folder / part, "model" if part == "text_encoder" else "diffusion_pytorch_model")
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_tokenizer(folder / "tokenizer")
    return folder


def write_flexiact(models: Path) -> None:
    """Nothing; writes a RefAdapter and an action with the released names and keys, as bfloat16 pickles."""
    random = torch.Generator().manual_seed(1)
    folder = models / "flexiact"
    (folder / ACTION).parent.mkdir(parents=True, exist_ok=True)
    matrices = refadapter_shapes(FULL.layers, FULL.rank, FULL.width)
    torch.save({key: _numbers(shape, random) for key, shape in matrices.items()}, folder / ADAPTER)
    tokens = {TOKEN_KEY.format(layer): (1, FULL.text_tokens, FULL.width) for layer in range(FULL.layers)}
    torch.save({key: _numbers(shape, random) for key, shape in tokens.items()}, folder / ACTION)


def _write_shards(shapes: Mapping[str, tuple[int, ...]], folder: Path, stem: str) -> None:
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(0)
    shards, size = [[]], 0
    for key, shape in shapes.items():
        nbytes = 2 * math.prod(shape)
        if size + nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(key)
        size += nbytes
    places = {}
    for number, keys in enumerate(shards, 1):
        name = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        # Not kept: the next shard is made while this name would still hold it.
        save_file({key: _weight(key, shapes[key], random) for key in keys}, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(keys, name)
    if len(shards) > 1:
        write_json(folder / f"{stem}.safetensors.index.json", {"metadata": {}, "weight_map": places})


def _weight(key: str, shape: tuple[int, ...], random: torch.Generator) -> torch.Tensor:
    if key.endswith("bias"):
        return torch.zeros(shape, dtype=torch.bfloat16)
    if "norm" in key and "linear" not in key:
        return torch.ones(shape, dtype=torch.bfloat16)
    return _numbers(shape, random)


def _numbers(shape: tuple[int, ...], random: torch.Generator) -> torch.Tensor:
    count = math.prod(shape)
    block = (torch.randn(min(count, BLOCK), generator=random) * 0.02).to(torch.bfloat16)
    return block.repeat(-(-count // len(block)))[:count].reshape(shape).contiguous()
