"""Hundreds of damaged models: each is read and drawn, or refused in a sentence. Nothing else comes out."""

import copy
import io
import random
import warnings

import numpy as np
import pytest
import torch
from gltf_models import arm, to_glb, triangle
from PIL import Image

from flexiact_core.avatars.gltf import read_avatar
from flexiact_core.avatars.scene import Scene, place_avatar, render_scene
from flexiact_core.errors import FlexiActError

VALUES = [
    None, -1, 0, 1, 2, 255, 1.5, 1e30, -1e30, True, "x", "", [], {}, [0], [1, 2, 3], {"a": 1}, 2**31, 2**40, "VEC3",
    5121, 5126, [[1]], [None],
]  # fmt: skip


def textured():
    """A triangle with a texture and its transform, a sparse accessor and a scene."""
    model = triangle(TEXCOORD_0=([[0, 0], [1, 0], [0, 1]],))
    content = io.BytesIO()
    Image.new("RGB", (2, 2)).save(content, "PNG")
    moved = {"KHR_texture_transform": {"offset": [0, 0]}}
    look = {"baseColorTexture": {"index": 0, "extensions": moved}, "baseColorFactor": [1, 1, 1, 1]}
    model.data |= {
        "images": [{"bufferView": model.view(content.getvalue())}],
        "textures": [{"source": 0}],
        "materials": [{"pbrMetallicRoughness": look, "alphaMode": "MASK"}],
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }
    model.data["meshes"][0]["primitives"][0]["material"] = 0
    indices, values = (model.view(np.zeros(3, kind).tobytes()) for kind in ("<u2", "<f4"))
    model.data["accessors"][0]["sparse"] = {
        "count": 1, "indices": {"bufferView": indices, "componentType": 5123}, "values": {"bufferView": values},
    }  # fmt: skip
    return model


def places(value, path=()):
    """The paths of all that is inside a JSON value."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def damaged(data: dict, chance: random.Random) -> dict:
    data = copy.deepcopy(data)
    for _ in range(chance.choice([1, 1, 2])):
        *way, last = chance.choice(list(places(data)))
        inside = data
        for key in way:
            inside = inside[key]
        if chance.random() < 0.2:
            inside.pop(last)
        else:
            inside[last] = chance.choice(VALUES)
    return data


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_model_is_drawn_or_refused(seed):
    chance = random.Random(seed)
    models = [(model.finished(), model.blob) for model in (arm(), textured())]
    ends = {"drawn": 0, "refused": 0}
    for _ in range(150):
        data, blob = chance.choice(models)
        content = bytearray(to_glb(damaged(data, chance) if chance.random() < 0.8 else data, blob))
        if chance.random() < 0.3:
            content[chance.randrange(len(content))] = chance.randrange(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                scene = Scene((place_avatar(read_avatar(bytes(content), "model.glb")),))
                film = render_scene(scene, num_frames=1, width=16, height=16, antialias=1)
            assert torch.isfinite(film.frames).all()
            ends["drawn"] += 1
        except FlexiActError as error:
            assert 20 < len(str(error)) < 400
            ends["refused"] += 1
    assert min(ends.values()) > 10
