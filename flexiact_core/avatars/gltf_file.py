"""A GLB or glTF file as JSON, buffers and numbers. Nothing is believed: every count and offset is checked first.

Format: Khronos glTF 2.0, sections 3.6 (binary data), 4 (GLB) and 5 (properties).
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from ..errors import FileError

MAX_FILE_BYTES = 512 * 2**20
# All numbers that one file's accessors may hold: many accessors may point at the same bytes.
MAX_NUMBERS = 64 * 10**6
COMPONENTS = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
# What may stand under extensionsRequired: these change nothing that is read, or are read.
KNOWN_EXTENSIONS = {
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "EXT_texture_webp",
    "KHR_materials_unlit",
    "KHR_lights_punctual",
    "KHR_node_visibility",
    "VRM",
    "VRMC_vrm",
}
COMPRESSED = {
    "KHR_draco_mesh_compression": "Draco compression",
    "EXT_meshopt_compression": "meshopt compression",
    "KHR_meshopt_compression": "meshopt compression",
    "KHR_texture_basisu": "KTX2 textures",
}


class GltfFile:
    """One file, read on demand. `data` is the JSON; numbers come from accessor(), bytes of images from image()."""

    def __init__(self, content: bytes, name: str, folder: Path | None = None):
        """The content of a .glb or .gltf. Files beside it are read from `folder` only; None reads none.

        Raises FileError if it is neither, is damaged, or needs an extension that is not known here.
        """
        self.name = name
        self.folder = folder
        self.numbers_left = MAX_NUMBERS
        self.buffers: dict[int, bytes] = {}
        if len(content) > MAX_FILE_BYTES:
            raise self.fail(f"{len(content) >> 20} MB are over the limit of {MAX_FILE_BYTES >> 20} MB.")
        text, self.binary = _split(content, name)
        self.data = _parse(text, name)
        self._check_version()

    def fail(self, what: str) -> FileError:
        """An error that names the file."""
        return FileError(f"{self.name}: {what}")

    def items(self, kind: str, inside: Mapping | None = None) -> list[dict]:
        """The list under `kind`, all of whose items are objects; an empty list if there is none."""
        found = (self.data if inside is None else inside).get(kind, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self.fail(f"'{kind}' should be a list of objects. The file is damaged: export it anew.")
        return found

    def item(self, kind: str, index: object) -> dict:
        """Item `index` of the list `kind`. Raises FileError if it is no number, or past the end."""
        found = self.items(kind)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(found):
            named = f"{kind} {str(index)[:40]}"
            raise self.fail(f"{named} is used, but there are {len(found)}. The file is damaged: export it anew.")
        return found[index]

    def count(self, inside: Mapping, key: str, default: int | None = None) -> int:
        """A number that must be whole and not negative."""
        value = inside.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
            raise self.fail(f"'{key}' is {str(value)[:40]}, not a count. The file is damaged: export it anew.")
        return value

    def accessor_count(self, index: object) -> int:
        """How many elements an accessor says it has; nothing is read."""
        return self.count(self.item("accessors", index), "count")

    def accessor(self, index: object, kinds: tuple[str, ...]) -> np.ndarray:
        """The elements of accessor `index`, (count, width): float32, or int64 where whole numbers are stored plainly.

        kinds are the types that it may have, "SCALAR" to "MAT4". Raises FileError before memory is taken if it lies
        outside its buffer, has another type, or the file's accessors hold more than 64 million numbers together.
        """
        accessor = self.item("accessors", index)
        kind = accessor.get("type")
        if kind not in kinds:
            raise self.fail(f"accessor {index} has type {str(kind)[:40]}, {' or '.join(kinds)} was expected.")
        component = _component(accessor)
        if component is None:
            found = str(accessor.get("componentType"))[:40]
            raise self.fail(f"accessor {index} has the component type {found}, which glTF 2.0 does not know.")
        count, width = self.count(accessor, "count"), WIDTHS[kind]
        self.numbers_left -= count * width
        if self.numbers_left < 0:
            raise self.fail(f"its accessors hold more than {MAX_NUMBERS} numbers. Reduce the model before exporting.")
        view = accessor.get("bufferView")
        if view is None:
            values = np.zeros((count, width), component)
        else:
            values = self._elements(view, self.count(accessor, "byteOffset", 0), count, width, component)
        if "sparse" in accessor:
            values = self._with_sparse(values, accessor["sparse"], count, width, component)
        if component is np.float32 and not np.isfinite(values).all():
            raise self.fail(f"accessor {index} holds numbers that are not finite. Repair the model and export it anew.")
        return _as_numbers(values, bool(accessor.get("normalized")))

    def image(self, index: object) -> bytes:
        """The bytes of an image, as stored: PNG, JPEG or WebP. Raises FileError if they are not within reach."""
        image = self.item("images", index)
        if "bufferView" in image:
            return bytes(self._view(image["bufferView"])[0])
        return self._resource(image.get("uri"), f"image {index}")

    def _check_version(self) -> None:
        asset = self.data.get("asset")
        version = str(asset.get("version", "")) if isinstance(asset, dict) else ""
        if not version.startswith("2"):
            raise self.fail(f"glTF 2 is needed, this is version '{version[:20]}'. Export it anew as glTF 2.0 or GLB.")
        required = self.data.get("extensionsRequired", [])
        required = [str(name) for name in required] if isinstance(required, list) else []
        for extension in required:
            if extension in COMPRESSED:
                raise self.fail(
                    f"it needs {COMPRESSED[extension]} ({extension}), which is not read. Export it without compression."
                )
        unknown = [name for name in required if name not in KNOWN_EXTENSIONS and not name.startswith("KHR_materials_")]
        if unknown:
            raise self.fail(f"it needs {', '.join(unknown)[:200]}, not read here. Export it without this extension.")

    def _buffer(self, index: int) -> bytes:
        if index not in self.buffers:
            buffer = self.item("buffers", index)
            length = self.count(buffer, "byteLength")
            if "uri" in buffer:
                content = self._resource(buffer["uri"], f"buffer {index}")
            elif index == 0 and self.binary is not None:
                content = self.binary
            else:
                raise self.fail(f"buffer {index} has no bytes. A .gltf needs its .bin; export it as .glb instead.")
            if len(content) < length:
                raise self.fail(f"buffer {index} should have {length} bytes, {len(content)} are there: it is cut off.")
            self.buffers[index] = content[:length]
        return self.buffers[index]

    def _resource(self, uri: object, what: str) -> bytes:
        """The bytes behind a URI: in the file itself, or a file below the model's own folder."""
        if not isinstance(uri, str):
            raise self.fail(f"{what} has no address. The file is damaged: export it anew.")
        if uri.startswith("data:"):
            head, comma, body = uri.partition(",")
            try:
                return base64.b64decode(body, validate=True) if comma and head.endswith(";base64") else body.encode()
            except (binascii.Error, ValueError) as error:
                raise self.fail(f"{what} is damaged base64 data.") from error
        relative = Path(unquote(uri))
        if "\0" in str(relative) or ":" in uri or relative.is_absolute() or "\\" in uri or ".." in relative.parts:
            raise self.fail(f"{what} lies outside the model's folder ({uri[:80]}), which is not read. Export as .glb.")
        if self.folder is None:
            raise self.fail(f"{what} lies in another file ({uri[:80]}), which did not come along. Export as .glb.")
        path = (self.folder / relative).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise self.fail(f"{what} leads out of the model's folder ({uri[:80]}), which is not read. Export as .glb.")
        if not path.is_file():
            raise self.fail(f"{what} should be in {uri[:80]}, which is not there. Put it beside the model.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise self.fail(f"{what}: {uri[:80]} is over {MAX_FILE_BYTES >> 20} MB.")
        return path.read_bytes()

    def _view(self, index: object) -> tuple[memoryview, int]:
        """The bytes of a buffer view, and its stride (0: packed)."""
        view = self.item("bufferViews", index)
        compressed = view.get("extensions")
        if isinstance(compressed, dict) and any("meshopt" in str(name) for name in compressed):
            raise self.fail("it uses meshopt compression, which is not read. Export it without compression.")
        content = memoryview(self._buffer(self.count(view, "buffer")))
        offset, length = self.count(view, "byteOffset", 0), self.count(view, "byteLength")
        if offset + length > len(content):
            raise self.fail(f"bufferView {index} ends {offset + length - len(content)} bytes past its buffer.")
        return content[offset : offset + length], self.count(view, "byteStride", 0)

    def _elements(self, view: object, offset: int, count: int, width: int, component: type) -> np.ndarray:
        content, stride = self._view(view)
        size = np.dtype(component).itemsize
        stride = stride or size * width
        end = offset + (stride * (count - 1) + size * width if count else 0)
        if end > len(content) or stride < size * width:
            raise self.fail(
                f"an accessor of {count} elements needs {end} bytes of bufferView {view}, {len(content)} are there. "
                "The file is damaged: export it anew."
            )
        if not count:
            return np.zeros((0, width), component)
        layout = np.ndarray((count, width), np.dtype(component).newbyteorder("<"), content, offset, (stride, size))
        return layout.astype(component)

    def _with_sparse(self, values: np.ndarray, sparse: object, count: int, width: int, component: type) -> np.ndarray:
        """`values` with some elements replaced: sparse accessors, glTF 2.0 section 3.6.2.3."""
        if not isinstance(sparse, dict) or not all(isinstance(sparse.get(k), dict) for k in ("indices", "values")):
            raise self.fail("a sparse accessor lacks its indices or values. The file is damaged: export it anew.")
        changed, where, what = self.count(sparse, "count"), sparse["indices"], sparse["values"]
        kind = _component(where)
        if changed > count or kind not in (np.uint8, np.uint16, np.uint32):
            raise self.fail(f"a sparse accessor changes {changed} of {count} elements, or counts them oddly.")
        rows = self._elements(where.get("bufferView"), self.count(where, "byteOffset", 0), changed, 1, kind)[:, 0]
        new = self._elements(what.get("bufferView"), self.count(what, "byteOffset", 0), changed, width, component)
        if len(rows) and int(rows.max()) >= count:
            raise self.fail(f"a sparse accessor changes element {int(rows.max())} of {count}.")
        values[rows.astype(np.int64)] = new
        return values


def _split(content: bytes, name: str) -> tuple[bytes, bytes | None]:
    """JSON text and binary chunk of a GLB; the whole as JSON for a .gltf."""
    if content[:4] != b"glTF":
        if content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
            return content, None
        raise FileError(f"{name}: a .glb or .gltf file with a skin and a clip is needed; this is none.")
    if len(content) < 20:
        raise FileError(f"{name}: {len(content)} bytes are too few for a GLB. The file is cut off: copy it anew.")
    version, length = struct.unpack_from("<II", content, 4)
    if version != 2 or length > len(content):
        raise FileError(
            f"{name}: the GLB says version {version} and {length} bytes, {len(content)} are there. Copy or export anew."
        )
    chunks: dict[int, bytes] = {}
    at = 12
    while at + 8 <= length:
        size, kind = struct.unpack_from("<II", content, at)
        if at + 8 + size > length:
            raise FileError(f"{name}: a chunk of {size} bytes ends outside the GLB. The file is damaged: export anew.")
        chunks.setdefault(kind, content[at + 8 : at + 8 + size])
        at += 8 + size
    if 0x4E4F534A not in chunks:
        raise FileError(f"{name}: the GLB has no JSON chunk. The file is damaged: export it anew.")
    return chunks[0x4E4F534A], chunks.get(0x004E4942)


def _parse(text: bytes, name: str) -> dict:
    def no_constant(word: str) -> float:
        raise ValueError(f"{word} is no JSON")

    try:
        data = json.loads(text.decode("utf-8-sig").rstrip("\0 "), parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{name}: its JSON cannot be read ({str(error)[:80]}). Export it anew.") from error
    if not isinstance(data, dict):
        raise FileError(f"{name}: its JSON is no object. A glTF 2.0 or GLB file is needed.")
    return data


def _component(entry: Mapping) -> type | None:
    """How its numbers are stored; None if it does not say."""
    kind = entry.get("componentType")
    return COMPONENTS.get(kind) if isinstance(kind, int) else None


def _as_numbers(values: np.ndarray, normalised: bool) -> np.ndarray:
    if values.dtype == np.float32:
        return values
    if not normalised:
        return values.astype(np.int64)
    # Section 3.6.2.2: the least signed value is clamped to -1.
    return np.maximum(values.astype(np.float32) / np.iinfo(values.dtype).max, -1.0)
