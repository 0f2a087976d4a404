"""Writes a CogVideoX image-to-video transformer with ComfyUI's own keys, for its loaders and for converters to GGUF.

    python -m flexiact_core.cogvideox.write_native models/CogVideo/CogVideoX-5b-I2V native.safetensors

A GGUF loader that does not know CogVideoX takes such keys under an architecture that it knows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import FlexiActError
from ..weight_files import write_tensors
from .loading import plan_transformer
from .native_keys import to_native


def write_native(source: Path, target: Path) -> Path:
    """The .safetensors file written: the transformer of a diffusers folder or single file, each tensor as stored.

    Raises FileError if the source is no such model or the target cannot be written.
    """
    state = plan_transformer(source, None, None).read_state()
    return write_tensors({to_native(key): value for key, value in state.items()}, target, {"format": "pt"})


def main(arguments: list[str] | None = None) -> None:
    """From the command line; exits with the reason if it cannot be done."""
    parser = argparse.ArgumentParser(prog="write_native", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a diffusers folder, or a single-file transformer")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    given = parser.parse_args(arguments)
    try:
        print(write_native(given.source, given.target))
    except FlexiActError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
