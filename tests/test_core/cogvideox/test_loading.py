import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import make_base, make_fae, put_in_one_file, weights_of

from flexiact_core.cogvideox import loading, parts
from flexiact_core.cogvideox.kinds import describe_transformer
from flexiact_core.cogvideox.loading import is_base_folder, load_base
from flexiact_core.errors import FileError
from flexiact_core.weight_files import StoredTensor

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(small_base, tmp_path):
    """A copy of the small base that a test may damage."""
    return shutil.copytree(small_base, tmp_path / "my-base")


def edit_config(folder, part="transformer", **fields):
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return folder


def refuse(source, message, components=None):
    with pytest.raises(FileError, match=message):
        load_base(source, components or source, torch.float32)


def test_a_folder_loads_whole_frozen_and_in_eval_mode(base, small_base):
    stored = weights_of(small_base / "transformer")
    state = base.transformer.state_dict()
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[key], stored[key]) for key in stored)
    for module in (base.transformer, base.vae, base.text_encoder):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not any(child.training for child in module.modules())
        assert not any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])
    assert base.scheduler_config["prediction_type"] == "v_prediction"


def test_text_encoder_and_vae_are_the_stored_ones(base, small_base):
    from diffusers import AutoencoderKLCogVideoX
    from transformers import T5EncoderModel

    pixels, tokens = torch.rand(1, 3, 9, 32, 32), torch.tensor([[5, 6, 1]])
    with torch.no_grad():
        expected = AutoencoderKLCogVideoX.from_pretrained(small_base / "vae").eval().encode(pixels).latent_dist.mean
        assert torch.equal(base.vae.encode(pixels).latent_dist.mean, expected)
        expected = T5EncoderModel.from_pretrained(small_base / "text_encoder", dtype=torch.float32).eval()(tokens)[0]
        assert torch.equal(base.text_encoder(tokens)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_all_modules_take_the_dtype_asked_for(small_base, dtype):
    loaded = load_base(small_base, small_base, dtype)
    assert loaded.dtype == dtype
    for module in (loaded.transformer, loaded.vae):
        assert {parameter.dtype for parameter in module.parameters()} == {dtype}
    # T5 keeps one matrix per layer in float32, since it overflows in float16.
    assert {p.dtype for name, p in loaded.text_encoder.named_parameters() if ".wo." not in name} == {dtype}


@pytest.mark.parametrize(
    ("stored", "computed"),
    [(torch.float32, torch.float32), (torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16)],
    ids=str,
)
def test_a_single_file_loads_with_the_rest_from_a_folder(small_base, tmp_path, stored, computed):
    weights = weights_of(small_base / "transformer")
    file = tmp_path / "any name.safetensors"
    save_file({key: value.to(stored) for key, value in weights.items()}, file)
    loaded = load_base(file, small_base, computed)
    state = loaded.transformer.state_dict()
    assert all(torch.equal(state[key], weights[key].to(stored).to(computed)) for key in weights)


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_float8_files_keep_their_big_matrices_small_and_nothing_else(small_base, tmp_path, stored):
    weights = weights_of(small_base / "transformer")
    file = tmp_path / "fp8.safetensors"
    save_file({key: value.to(stored) for key, value in weights.items()}, file)
    state = load_base(file, small_base, torch.bfloat16).transformer.state_dict()
    assert all(torch.equal(state[key].float(), weights[key].to(stored).float()) for key in weights)
    small = {key for key, value in state.items() if value.dtype == stored}
    assert "transformer_blocks.0.attn1.to_q.weight" in small and "transformer_blocks.1.ff.net.2.weight" in small
    assert all(key.startswith("transformer_blocks.") and key.endswith(".weight") for key in small)
    assert not any("norm" in key for key in small)
    assert {value.dtype for key, value in state.items() if key not in small} == {torch.bfloat16}


def test_big_matrices_can_be_kept_in_float8_whatever_the_file_holds(small_base):
    weights = weights_of(small_base / "transformer")
    state = load_base(small_base, small_base, torch.bfloat16, keep_float8=True).transformer.state_dict()
    for key, value in state.items():
        big = key.startswith("transformer_blocks.") and value.ndim == 2 and "norm" not in key
        stored = torch.float8_e4m3fn if big else torch.bfloat16
        assert value.dtype == stored, key
        assert torch.equal(value.float(), weights[key].to(stored).float()), key


def test_a_base_is_recognised_by_its_content_never_by_its_name(small_base, tmp_path):
    misleading = shutil.copytree(small_base, tmp_path / "CogVideoX1.5-2b-inpaint-T2V")
    assert is_base_folder(misleading)
    load_base(misleading, misleading, torch.float32)
    assert not is_base_folder(tmp_path)


KINDS = {
    "a text-to-video model": ({"in_channels": 16}, r"text-to-video model \(16 input channels"),
    "CogVideoX-2B": (
        {"num_layers": 30, "num_attention_heads": 30, "in_channels": 16},
        r"CogVideoX-2B model \(30 layers of width 1920, 16 input channels\)",
    ),
    "patches of a size unknown": ({"patch_size_t": 4}, "patches of 4 latent frames, as no released base has"),
    "an inpaint model": ({"in_channels": 48}, "48 input channels found, as inpainting and control models"),
    "a Fun inpaint model": ({"in_channels": 33}, "33 input channels found"),
    "another architecture": ({"_class_name": "WanTransformer3DModel"}, "is a WanTransformer3DModel, no CogVideoX"),
    "no rotary positions": ({"use_rotary_positional_embeddings": False}, "has no rotary positions"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_bases_of_another_kind_are_refused_with_what_was_found_and_what_is_needed(folder, monkeypatch, kind):
    fields, found = KINDS[kind]
    edit_config(folder, **fields)
    monkeypatch.setattr(parts, "map_tensors", None)
    refuse(folder, f"my-base: .*{found}.*needs a CogVideoX image-to-video base.*such as CogVideoX-5b-I2V")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"in_channels": 16}, "text-to-video model"),
        ({"in_channels": 48}, "48 input channels"),
        ({"patch_size_t": 2, "in_channels": 16}, "text-to-video model"),
        ({"num_layers": 30, "num_attention_heads": 30, "in_channels": 16}, "CogVideoX-2B model"),
    ],
)
def test_single_files_of_another_kind_are_refused_by_their_shapes(small_base, tmp_path, config, found):
    from diffusers import CogVideoXTransformer3DModel

    own = json.loads((small_base / "transformer" / "config.json").read_text())
    own |= {"use_learned_positional_embeddings": False, "attention_head_dim": 4} | config
    transformer = CogVideoXTransformer3DModel.from_config(own)
    # What the shapes say counts, also where they are named like the right model.
    file = tmp_path / "cogvideox-5b-i2v.safetensors"
    save_file({key: value.half().contiguous() for key, value in transformer.state_dict().items()}, file)
    refuse(file, f"cogvideox-5b-i2v.safetensors: .*{found}.*FlexiAct needs", components=small_base)


def test_a_file_of_something_else_is_refused_with_its_first_keys(small_base, tmp_path):
    file = make_fae(tmp_path / "kick.safetensors")
    refuse(file, r"kick.safetensors: no CogVideoX transformer .*\(keys begin with transformer_blocks\)", small_base)


def test_a_pickled_transformer_is_refused_without_calling_it_damaged(small_base, tmp_path):
    file = tmp_path / "transformer.pt"
    torch.save(weights_of(small_base / "transformer"), file)
    refuse(file, "transformer.pt: a .safetensors file is needed here", small_base)


def test_a_folder_without_a_transformer_is_refused(tmp_path):
    refuse(tmp_path, r"no transformer/config.json in it. Download the whole diffusers folder")


def test_missing_and_unexpected_keys_are_named(folder):
    file = put_in_one_file(folder / "transformer")
    weights = load_file(file)
    weights["extra.weight"] = weights.pop("proj_out.bias")
    save_file(weights, file)
    refuse(folder, r"my-base: 1 keys missing \(proj_out.bias\); 1 keys unexpected \(extra.weight\).*FlexiAct needs")


def test_shapes_that_differ_from_the_config_are_refused(folder):
    edit_config(folder, text_embed_dim=48)
    refuse(folder, r"another shape \(patch_embed.text_proj.weight: \[32, 48\] expected, \[32, 32\] found\)")


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_truncated_weights_are_refused(folder, part):
    file = put_in_one_file(folder / part)
    file.write_bytes(file.read_bytes()[:-100])
    refuse(folder, f"{WEIGHTS}: the file is damaged or cut short. Download it again")


def test_a_truncated_text_encoder_is_refused_before_any_weight_is_read(folder, monkeypatch):
    file = put_in_one_file(folder / "text_encoder")
    file.write_bytes(file.read_bytes()[:-100])
    monkeypatch.setattr(parts, "map_tensors", None)
    refuse(folder, "model.safetensors: the file is damaged or cut short. Download it again")


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer", "vae", "scheduler"])
def test_a_missing_part_is_named_before_any_weight_is_read(folder, monkeypatch, part):
    shutil.rmtree(folder / part)
    monkeypatch.setattr(parts, "map_tensors", None)
    refuse(folder, f"my-base: no {part} folder in it. Choose as components a complete diffusers folder")


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_a_part_without_weights_is_named(folder, part):
    for file in (folder / part).glob("*.safetensors*"):
        file.unlink()
    refuse(folder, f"my-base/{part}: a .safetensors file is missing. Download the folder again")


@pytest.mark.parametrize("file", ["transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{ cut", "the file is damaged or cut short. Download it again"),
        ("", "the file is empty. Download it again"),
        ("[]", "a table of settings was expected"),
        ("null", "a table of settings was expected"),
        ("[" * 100_000, "the file is damaged or cut short"),
        ('{"num_layers": 1e400}', "num_layers is beyond what a model can have"),
        ('{"num_layers": [[[[1]]]]}', "num_layers is no setting of this model"),
    ],
)
def test_a_config_that_is_no_table_of_settings_is_named(folder, file, content, words):
    (folder / file).write_text(content)
    refuse(folder, f"my-base/{file}: {words}")


@pytest.mark.parametrize("part", ["vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"])
def test_a_missing_config_is_named(folder, part):
    (folder / part).unlink()
    refuse(folder, f"my-base/{part}: no such file in {part.partition('/')[0]}")


def test_an_empty_tokenizer_folder_is_named(folder):
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    refuse(folder, "my-base/tokenizer: no vocabulary in it")


def test_a_text_encoder_of_another_kind_is_named(folder):
    edit_config(folder, "text_encoder", num_heads=3)
    refuse(
        folder, r"my-base/text_encoder: 5 tensors of another shape \(encoder.block.0.*: \[48, 32\] expected, \[32, 32\]"
    )


def test_a_text_encoder_with_a_weight_missing_is_named(folder):
    file = put_in_one_file(folder / "text_encoder")
    weights = load_file(file)
    weights.pop("encoder.block.0.layer.0.SelfAttention.q.weight")
    save_file(weights, file, metadata={"format": "pt"})
    refuse(folder, r"my-base/text_encoder: 1 keys missing \(encoder.block.0.*SelfAttention.q.weight\)")


def test_a_text_encoder_of_another_width_is_refused_before_any_weight_is_read(folder, monkeypatch):
    edit_config(folder, "text_encoder", d_model=48)
    monkeypatch.setattr(parts, "map_tensors", None)
    refuse(folder, "my-base/text_encoder: embeddings of width 48; the transformer reads 32")


def test_a_vae_with_other_latents_is_refused(folder):
    edit_config(folder, "vae", latent_channels=4)
    refuse(folder, "my-base: its VAE has 4 latent channels, 16 needed")


def test_a_transformer_in_one_file_loads_as_in_shards(base, folder):
    put_in_one_file(folder / "transformer")
    state = load_base(folder, folder, torch.float32).transformer.state_dict()
    assert all(torch.equal(state[key], value) for key, value in base.transformer.state_dict().items())


def test_a_missing_shard_is_named(folder):
    (folder / "transformer" / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    refuse(folder, "my-base/transformer: diffusion_pytorch_model-00002-of-00003.safetensors is missing. Download")


def test_a_truncated_shard_is_named(folder):
    file = folder / "transformer" / "diffusion_pytorch_model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    refuse(folder, "diffusion_pytorch_model-00002-of-00003.safetensors: the file is damaged or cut short")


def test_an_index_without_its_table_is_named(folder):
    part = folder / "transformer"
    (part / f"{WEIGHTS}.index.json").write_text("{}")
    refuse(folder, "my-base/transformer: a .safetensors file is missing. Download the folder again")


def test_a_variant_beside_the_plain_file_is_not_taken(base, folder):
    part = folder / "transformer"
    save_file({"other": torch.ones(1)}, part / "diffusion_pytorch_model.fp16.safetensors")
    state = load_base(folder, folder, torch.float32).transformer.state_dict()
    assert torch.equal(state["proj_out.bias"], base.transformer.state_dict()["proj_out.bias"])


@pytest.mark.parametrize("layers", [1, 3])
def test_other_sizes_of_the_same_kind_load(tmp_path, layers):
    other = make_base(tmp_path / "other", layers=layers, heads=4, head_dim=16, text_tokens=16, frames=9)
    loaded = load_base(other, other, torch.float32)
    assert loaded.transformer.config.num_layers == layers


def test_the_released_sizes_are_read_off_the_shapes_of_a_single_file(released_transformer):
    released = released_transformer.config
    shapes = {key: tuple(value.shape) for key, value in released_transformer.state_dict().items()}
    described = describe_transformer(shapes)
    assert {key: released.get(key) for key in described} == described


@pytest.mark.parametrize("as_folder", [True, False], ids=["folder", "single file"])
def test_the_released_base_passes_every_check_before_its_weights_are_read(
    small_base, tmp_path, monkeypatch, released_transformer, as_folder
):
    shapes = {key: tuple(value.shape) for key, value in released_transformer.state_dict().items()}
    contents = {key: StoredTensor(shape, "BF16", 2 * math.prod(shape)) for key, shape in shapes.items()}
    monkeypatch.setattr(loading, "read_shapes", lambda path: shapes)
    monkeypatch.setattr(parts, "read_contents", lambda path: contents)
    # The text encoder is looked for after the transformer has passed.
    components = tmp_path / "rest"
    source = tmp_path / "big.safetensors"
    components.mkdir()
    source.write_bytes(bytes(8))
    if as_folder:
        source = tmp_path / "CogVideoX-5b-I2V"
        (source / "transformer").mkdir(parents=True)
        (source / "transformer" / "config.json").write_text(json.dumps(dict(released_transformer.config)))
        (source / "transformer" / WEIGHTS).write_bytes(bytes(8))
    refuse(source, "rest: no text_encoder folder in it", components)
