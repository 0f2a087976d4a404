"""Materials and textures of a glTF file, as far as a colour on a surface needs them."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch

from .avatar import Material
from .gltf_file import GltfFile

MAX_TEXTURE_PIXELS = 8192 * 8192
# Larger textures are averaged down once: a video frame shows less of them, and sampling takes no finer levels.
KEPT_SIDE = 1024


@dataclass(frozen=True)
class Surface:
    """A material, its linear colour, which texture coordinates it uses and how they are moved."""

    material: Material
    colour: tuple[float, float, float]
    uv_set: int = 0
    uv_matrix: np.ndarray | None = None  # (3, 3), KHR_texture_transform


PLAIN = Surface(Material(), (1.0, 1.0, 1.0))


def read_surfaces(file: GltfFile) -> list[Surface]:
    """The materials of the file. Raises FileError for a texture that is damaged or over 8192 x 8192 pixels."""
    textures: dict[int, torch.Tensor] = {}
    return [_read_surface(file, entry, textures) for entry in file.items("materials")]


def _read_surface(file: GltfFile, entry: dict, textures: dict[int, torch.Tensor]) -> Surface:
    base = entry.get("pbrMetallicRoughness", {})
    factor = base.get("baseColorFactor", [1, 1, 1, 1]) if isinstance(base, dict) else [1, 1, 1, 1]
    if not isinstance(factor, list) or len(factor) != 4 or not all(_is_share(x) for x in factor):
        raise file.fail("a baseColorFactor is not four numbers from 0 to 1. The file is damaged: export it anew.")
    info = base.get("baseColorTexture") if isinstance(base, dict) else None
    mode, cutoff = entry.get("alphaMode", "OPAQUE"), entry.get("alphaCutoff", 0.5)
    extensions = entry.get("extensions")
    material = Material(
        texture=_read_texture(file, info["index"], textures) if isinstance(info, dict) and "index" in info else None,
        alpha=float(factor[3]),
        # What is half see-through is drawn where it is more there than not: this rasteriser has no layers.
        cutoff=None if mode == "OPAQUE" else float(cutoff) if mode == "MASK" and _is_share(cutoff) else 0.5,
        double_sided=bool(entry.get("doubleSided", False)),
        unlit=isinstance(extensions, dict) and "KHR_materials_unlit" in extensions,
    )
    uv_set, matrix = _placing(file, info) if isinstance(info, dict) else (0, None)
    return Surface(material, tuple(float(x) for x in factor[:3]), uv_set, matrix)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _placing(file: GltfFile, info: dict) -> tuple[int, np.ndarray | None]:
    """Which coordinates a texture takes, and KHR_texture_transform's matrix: moved, turned, scaled."""
    extensions = info.get("extensions")
    moved = extensions.get("KHR_texture_transform") if isinstance(extensions, dict) else None
    if not isinstance(moved, dict):
        return file.count(info, "texCoord", 0), None
    offset, scale, angle = moved.get("offset", [0, 0]), moved.get("scale", [1, 1]), moved.get("rotation", 0)
    numbers = [*offset, *scale, angle] if isinstance(offset, list) and isinstance(scale, list) else []
    if len(numbers) != 5 or not all(isinstance(x, int | float) and abs(x) < 1e6 for x in numbers):
        raise file.fail("a KHR_texture_transform is damaged: offset, scale and rotation are needed.")
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    move = np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]])
    return file.count(moved, "texCoord", file.count(info, "texCoord", 0)), move @ turn @ np.diag([*scale, 1])


def _read_texture(file: GltfFile, index: object, read: dict[int, torch.Tensor]) -> torch.Tensor:
    texture = file.item("textures", index)
    extensions = texture.get("extensions")
    webp = extensions.get("EXT_texture_webp") if isinstance(extensions, dict) else None
    source = webp.get("source") if isinstance(webp, dict) else texture.get("source")
    if source is None:
        raise file.fail("a texture has no PNG, JPEG or WebP picture (KTX2 is not read). Export it with PNG textures.")
    file.item("images", source)
    if source not in read:
        read[source] = _decode(file, file.image(source), f"image {source}")
    return read[source]


def _decode(file: GltfFile, content: bytes, what: str) -> torch.Tensor:
    """(h, w, 4) uint8; the size is read off the header before pixels are decoded."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as picture:
            width, height = picture.size
            if width * height > MAX_TEXTURE_PIXELS:
                raise file.fail(f"{what} has {width} x {height} pixels, at most 8192 x 8192 are read. Make it smaller.")
            factor = max(1, math.ceil(max(width, height) / KEPT_SIDE))
            pixels = picture.convert("RGBA").reduce(factor)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise file.fail(f"{what} is no PNG, JPEG or WebP picture, or is damaged ({str(error)[:60]}).") from error
    return torch.from_numpy(np.array(pixels))
