"""CogVideoX 1.5 and DynamiCtrl: recognised, loaded whole, told from 1.0."""

import json
import shutil

import pytest
import torch
from dynamictrl_golden import OWN
from safetensors.torch import load_file, save_file
from small_models_1_5 import edit_json, make_base_1_5

from flexiact_core.cogvideox.family import COGVIDEOX_1_0, COGVIDEOX_1_5, DYNAMICTRL, family_of
from flexiact_core.cogvideox.kinds import (
    COGVIDEOX_15_5B_I2V,
    complete_config,
    describe_transformer,
    empty_transformer,
    refuse_other_kinds,
)
from flexiact_core.cogvideox.loading import load_base
from flexiact_core.cogvideox.model import base_signature
from flexiact_core.errors import FileError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_base_1_5(tmp_path_factory.mktemp("plain") / "CogVideoX1.5")


@pytest.fixture(scope="module")
def dynamictrl(tmp_path_factory):
    return make_base_1_5(tmp_path_factory.mktemp("poses") / "DynamiCtrl", poses=True)


def released_shapes() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the released DynamiCtrl transformer."""
    return {key: tuple(shape) for key, shape in json.loads((OWN / "release_keys.json").read_text()).items()}


def plain_shapes() -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in released_shapes().items() if ".control_norm1." not in key}


@pytest.mark.parametrize(
    ("shapes", "number", "family"), [(released_shapes, 1196, DYNAMICTRL), (plain_shapes, 1028, COGVIDEOX_1_5)]
)
def test_the_released_keys_load_strict(shapes, number, family):
    shapes = shapes()
    config = complete_config(describe_transformer(shapes), None)
    refuse_other_kinds("released", config, shapes)
    transformer = empty_transformer(config, shapes)
    assert {key: tuple(value.shape) for key, value in transformer.state_dict().items()} == shapes
    assert len(shapes) == number and family_of(transformer.config) is family
    transformer.load_state_dict({key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, strict=True)


def test_a_single_released_file_is_completed_with_released_values():
    config = complete_config(describe_transformer(plain_shapes()), None)
    assert {key: config[key] for key in COGVIDEOX_15_5B_I2V} == COGVIDEOX_15_5B_I2V
    assert config["text_embed_dim"] == 4096 and config["time_embed_dim"] == 512


def test_a_1_5_folder_loads_and_its_actions_are_not_1_0s(plain, base):
    loaded = load_base(plain, plain, torch.float32)
    shards = (plain / "transformer").glob("*.safetensors")
    stored = {key: value for shard in shards for key, value in load_file(shard).items()}
    state = loaded.transformer.state_dict()
    assert state.keys() == stored.keys() and all(torch.equal(state[key], stored[key]) for key in stored)
    assert loaded.family is COGVIDEOX_1_5 and base.family is COGVIDEOX_1_0
    assert base_signature(loaded.transformer) == "cogvideox1.5-i2v-2x32"
    assert base_signature(base.transformer) == "cogvideox-i2v-2x32"


def test_dynamictrls_folder_loads_with_its_pose_norms(dynamictrl):
    loaded = load_base(dynamictrl, dynamictrl, torch.float32)
    stored = load_file(dynamictrl / "transformer" / WEIGHTS)
    state = loaded.transformer.state_dict()
    assert sum(".control_norm1." in key for key in stored) == 4 * loaded.transformer.config.num_layers
    assert state.keys() == stored.keys() and all(torch.equal(state[key], stored[key]) for key in stored)
    # Motion tokens and adapters of plain 1.5 fit its layers.
    assert loaded.family is DYNAMICTRL and base_signature(loaded.transformer) == "cogvideox1.5-i2v-2x32"


def test_its_transformer_alone_takes_components_of_a_1_5_folder(dynamictrl, plain, base, small_base, tmp_path):
    alone = tmp_path / "Mask_B01"
    shutil.copytree(dynamictrl / "transformer", alone / "transformer")
    assert load_base(alone, plain, torch.float32).family is DYNAMICTRL
    with pytest.raises(FileError, match="no text_encoder folder in it. Choose as components a complete"):
        load_base(alone, alone, torch.float32)
    with pytest.raises(FileError, match="these components are of CogVideoX 1.0, the transformer Mask_B01 is of 1.5"):
        load_base(alone, small_base, torch.float32)


def test_a_single_file_takes_components_of_a_1_5_folder(dynamictrl, plain):
    loaded = load_base(dynamictrl / "transformer" / WEIGHTS, plain, torch.float32)
    assert loaded.family is DYNAMICTRL
    assert loaded.transformer.config.sample_width == 40


def test_big_matrices_can_be_kept_in_float8_and_pose_norms_stay(dynamictrl):
    state = load_base(dynamictrl, dynamictrl, torch.bfloat16, keep_float8=True).transformer.state_dict()
    assert state["transformer_blocks.0.control_norm1.linear.weight"].dtype == torch.bfloat16
    assert state["transformer_blocks.0.ff.net.2.weight"].dtype == torch.float8_e4m3fn


@pytest.fixture
def folder(dynamictrl, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(dynamictrl, tmp_path / "my-base")


def change_weights(folder, change):
    file = folder / "transformer" / WEIGHTS
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


def transpose(weights):
    key = "transformer_blocks.1.control_norm1.linear.weight"
    weights[key] = weights[key].T.contiguous()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda weights: weights.pop("transformer_blocks.1.control_norm1.norm.bias"),
            r"1 keys missing \(transformer_blocks.1.control_norm1.norm.bias\)",
        ),
        (transpose, r"another shape \(transformer_blocks.1.control_norm1.linear.weight: \[96, 16\] expected"),
    ],
)
def test_pose_norms_that_are_not_whole_are_named(folder, change, words):
    change_weights(folder, change)
    with pytest.raises(FileError, match=words):
        load_base(folder, folder, torch.float32)


def test_pickles_are_refused(dynamictrl, plain, tmp_path):
    file = tmp_path / "dynamictrl.pt"
    torch.save(load_file(dynamictrl / "transformer" / WEIGHTS), file)
    with pytest.raises(FileError, match="a .safetensors file is needed here"):
        load_base(file, plain, torch.float32)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"patch_size_t": 4}, "patches of 4 latent frames"),
        ({"in_channels": 16}, "text-to-video model"),
        ({"use_rotary_positional_embeddings": False}, "no rotary positions"),
        ({"use_learned_positional_embeddings": True}, "learned positions in a model whose patches span frames"),
        ({"_class_name": "WanTransformer3DModel"}, None),
    ],
)
def test_other_kinds_are_refused(folder, fields, words):
    edit_json(folder / "transformer" / "config.json", **fields)
    if words is None:
        # With the pose keys in its files, its class may have any name.
        assert load_base(folder, folder, torch.float32).family is DYNAMICTRL
        return
    with pytest.raises(FileError, match=words):
        load_base(folder, folder, torch.float32)
