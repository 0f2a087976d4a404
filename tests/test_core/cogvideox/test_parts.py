"""Text encoder and VAE from single files, and room for what is read."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import weights_of

from flexiact_core import weight_files
from flexiact_core.cogvideox import parts
from flexiact_core.cogvideox.loading import load_base
from flexiact_core.cogvideox.text_encoder import describe_text_encoder
from flexiact_core.errors import FileError

CPU = torch.device("cpu")


@pytest.fixture
def text_file(small_base, tmp_path):
    """Writes the small base's text encoder into one file, changed by a function of its tensors."""

    def write(change=lambda tensors: tensors):
        save_file(change(weights_of(small_base / "text_encoder")), tmp_path / "t5xxl.safetensors")
        return tmp_path / "t5xxl.safetensors"

    return write


@pytest.fixture
def vae_file(small_base, tmp_path):
    save_file(weights_of(small_base / "vae"), tmp_path / "cogvideox_vae.safetensors")
    return tmp_path / "cogvideox_vae.safetensors"


def in_dtype(dtype):
    return lambda tensors: {key: value.to(dtype) for key, value in tensors.items()}


def encoded(encoder):
    with torch.no_grad():
        return encoder(torch.tensor([[5, 6, 7, 1, 0, 0]]))[0]


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn], ids=str)
def test_a_text_encoder_of_a_single_file_is_the_stored_one(base, small_base, text_file, stored):
    found = load_base(small_base, small_base, torch.float32, text_encoder=text_file(in_dtype(stored))).text_encoder
    state = found.state_dict()
    for key, value in weights_of(small_base / "text_encoder").items():
        assert torch.equal(state[key], value.to(stored).float()), key
    if stored == torch.float32:
        assert torch.equal(encoded(found), encoded(base.text_encoder))


def to_scaled_float8(scale_name, mark):
    def change(tensors):
        changed = {}
        for key, value in tensors.items():
            if value.ndim == 2 and key.startswith("encoder.block.") and "bias" not in key:
                layer = key.removesuffix(".weight")
                scale = value.abs().max() / 448
                changed[key] = (value / scale).to(torch.float8_e4m3fn)
                changed[f"{layer}.{scale_name}"] = scale
                changed |= mark(layer)
            else:
                changed[key] = value
        return changed

    return change


def quantized_as(kind):
    return lambda layer: {
        f"{layer}.comfy_quant": torch.tensor(list(json.dumps({"format": kind}).encode()), dtype=torch.uint8)
    }


SCALED = {
    "older": ("scale_weight", lambda layer: {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}),
    "newer": ("weight_scale", quantized_as("float8_e4m3fn")),
}


@pytest.mark.parametrize("kind", SCALED)
def test_scaled_float8_as_comfyui_has_it_is_read_with_its_scales(small_base, text_file, kind):
    file = text_file(to_scaled_float8(*SCALED[kind]))
    state = load_base(small_base, small_base, torch.float32, text_encoder=file).text_encoder.state_dict()
    for key, value in weights_of(small_base / "text_encoder").items():
        # Three bits of mantissa: a sixteenth of the value at most.
        torch.testing.assert_close(state[key], value, rtol=1 / 16, atol=value.abs().max().item() / 400)


def test_other_quantizations_are_refused(small_base, text_file):
    file = text_file(to_scaled_float8("weight_scale", quantized_as("nvfp4")))
    with pytest.raises(FileError, match="t5xxl.safetensors: quantized in a way that is not read here"):
        load_base(small_base, small_base, torch.float32, text_encoder=file)


NAMES = {
    "as released": lambda tensors: tensors,
    "both names of the embedding": lambda t: t | {"encoder.embed_tokens.weight": t["shared.weight"].clone()},
    "the other name of the embedding": lambda t: {
        "encoder.embed_tokens.weight" if key == "shared.weight" else key: value for key, value in t.items()
    },
    "in a checkpoint of more": lambda t: (
        {f"text_encoders.t5xxl.transformer.{key}": v for key, v in t.items()}
        | {"model.diffusion_model.x": torch.zeros(3)}
    ),
    "with the decoder": lambda t: t | {"decoder.block.0.x": torch.zeros(2), "lm_head.weight": torch.zeros(2)},
    "with ComfyUI's extras": lambda t: t | {"logit_scale": torch.ones(1), "spiece_model": torch.zeros(9)},
}


@pytest.mark.parametrize("names", NAMES)
def test_a_text_encoder_is_found_whatever_lies_around_it(base, small_base, text_file, names):
    found = load_base(small_base, small_base, torch.float32, text_encoder=text_file(NAMES[names])).text_encoder
    assert torch.equal(encoded(found), encoded(base.text_encoder))
    assert found.encoder.embed_tokens.weight is found.shared.weight


def test_float16_keeps_the_matrices_that_overflow_in_float32(small_base, text_file):
    found = load_base(small_base, small_base, torch.float16, text_encoder=text_file(in_dtype(torch.float16)))
    kinds = {".wo." in name: p.dtype for name, p in found.text_encoder.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.float16}


OTHERS = {
    "no text encoder": (lambda t: {"x": torch.ones(2)}, "no T5 encoder in it. CogVideoX reads T5-v1.1-XXL"),
    "another width": (lambda t: t | {"shared.weight": torch.ones(128, 24)}, "embeddings of width 24; the transf"),
    "UMT5": (lambda t: t | {"shared.weight": torch.ones(50_000, 32)}, "a vocabulary of 50000 pieces, as UMT5 has"),
    "a weight missing": (
        lambda t: {k: v for k, v in t.items() if "layer_norm" not in k},
        r"3 keys missing \(encoder.block.0.layer.0.layer_norm.weight, .*such as t5xxl_fp16.safetensors",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_text_encoders_are_refused_before_any_weight_is_read(small_base, text_file, monkeypatch, kind):
    change, words = OTHERS[kind]
    file = text_file(change)
    monkeypatch.setattr(parts, "map_tensors", None)
    with pytest.raises(FileError, match=f"t5xxl.safetensors: {words}"):
        load_base(small_base, small_base, torch.float32, text_encoder=file)


def test_the_released_text_encoder_is_read_off_its_shapes():
    from transformers import T5Config, T5EncoderModel

    config = {"vocab_size": 32128, "d_model": 4096, "num_heads": 64, "d_kv": 64, "d_ff": 10240, "num_layers": 24}
    config |= {"relative_attention_num_buckets": 32, "feed_forward_proj": "gated-gelu"}
    with torch.device("meta"):
        encoder = T5EncoderModel(T5Config(**config))
    assert describe_text_encoder({key: tuple(value.shape) for key, value in encoder.state_dict().items()}) == config


@pytest.mark.parametrize("wrapper", ["", "vae.", "first_stage_model."])
def test_a_vae_of_a_single_file_is_the_stored_one(base, small_base, tmp_path, wrapper):
    file = tmp_path / "vae.safetensors"
    save_file({wrapper + key: value for key, value in weights_of(small_base / "vae").items()}, file)
    found = load_base(small_base, small_base, torch.float32, vae=file).vae
    state = base.vae.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in found.state_dict().items())
    assert found.config.scaling_factor == 0.7


def test_what_is_no_vae_of_this_model_is_refused(small_base, tmp_path):
    file = tmp_path / "vae.safetensors"
    save_file({"decoder.conv_in.weight": torch.ones(2)}, file)
    with pytest.raises(FileError, match="vae.safetensors: no CogVideoX VAE in it. A CogVideoX VAE with diffusers keys"):
        load_base(small_base, small_base, torch.float32, vae=file)
    save_file({"decoder.conv_in.conv.weight": torch.ones(2)}, file)
    with pytest.raises(FileError, match=r"vae.safetensors: \d+ keys missing .*A CogVideoX VAE with diffusers keys"):
        load_base(small_base, small_base, torch.float32, vae=file)


def test_a_folder_without_the_parts_that_files_give_is_enough(base, small_base, tmp_path, text_file, vae_file):
    for part in ("transformer", "scheduler"):
        shutil.copytree(small_base / part, tmp_path / "thin" / part)
    shutil.copytree(small_base / "vae", tmp_path / "thin" / "vae", ignore=shutil.ignore_patterns("*.safetensors"))
    thin, files = tmp_path / "thin", {"text_encoder": text_file(), "vae": vae_file}
    found = load_base(thin, thin, torch.float32, **files, vocabulary=small_base / "tokenizer")
    assert torch.equal(encoded(found.text_encoder), encoded(base.text_encoder))
    assert found.tokenizer("a cat").input_ids == base.tokenizer("a cat").input_ids
    with pytest.raises(FileError, match="thin: no tokenizer folder in it"):
        load_base(thin, thin, torch.float32, **files)


def test_three_single_files_make_a_base_with_the_released_settings(
    small_base, tmp_path, monkeypatch, text_file, vae_file
):
    from flexiact_core.cogvideox import loading, vae

    small = json.loads((small_base / "vae" / "config.json").read_text())
    monkeypatch.setattr(loading, "RELEASED", vae.RELEASED | {key: small[key] for key in SMALLER})
    file = tmp_path / "transformer.safetensors"
    save_file(weights_of(small_base / "transformer"), file)
    monkeypatch.setattr(loading, "complete_config", lambda described, beside: whole(small_base) | described)
    found = load_base(
        file, None, torch.float32, text_encoder=text_file(), vae=vae_file, vocabulary=small_base / "tokenizer"
    )
    assert found.scheduler_config["snr_shift_scale"] == 1.0 and found.scheduler_config["rescale_betas_zero_snr"]
    with pytest.raises(FileError, match="components: no vae folder in it.*or single files for text encoder and VAE"):
        load_base(file, None, torch.float32, text_encoder=text_file(), vocabulary=small_base / "tokenizer")


# In what the small VAE differs from the released one.
SMALLER = ("block_out_channels", "layers_per_block", "norm_num_groups", "sample_height", "sample_width")


def whole(small_base):
    return json.loads((small_base / "transformer" / "config.json").read_text())


def test_released_settings_are_those_of_the_layout_that_tests_stand_on(small_base):
    from flexiact_core.cogvideox import loading, vae

    small = json.loads((small_base / "vae" / "config.json").read_text())
    assert {key: value for key, value in vae.RELEASED.items() if key not in SMALLER} == {
        key: small[key] for key in vae.RELEASED if key not in SMALLER
    }
    scheduler = json.loads((small_base / "scheduler" / "scheduler_config.json").read_text())
    assert {key: scheduler[key] for key in loading.SCHEDULER} == loading.SCHEDULER


def bytes_of(folder, dtype):
    return sum(value.numel() for value in weights_of(folder).values()) * dtype.itemsize


def test_what_does_not_fit_is_refused_before_anything_is_read(small_base, monkeypatch):
    needed = sum(bytes_of(small_base / part, torch.float32) for part in ("transformer", "vae", "text_encoder"))
    load_base(small_base, small_base, torch.float32, free_bytes=needed)
    monkeypatch.setattr(parts, "map_tensors", None)
    with pytest.raises(FileError, match=r"small: needs 0.0 GB of memory to load .*0.0 GB are free"):
        load_base(small_base, small_base, torch.float32, free_bytes=needed - 1)


PARTS = {"transformer": "transformer", "VAE": "vae", "text encoder": "text_encoder"}


@pytest.mark.parametrize("kind", PARTS)
def test_each_part_counts_what_has_to_be_copied_and_nothing_else(small_base, tmp_path, monkeypatch, kind):
    """Files that stay mapped take no memory; the one part stored in another format does."""
    monkeypatch.setattr(weight_files, "MAX_READ_BYTES", 100)
    monkeypatch.setattr(parts, "MAX_READ_BYTES", 100)
    folder = shutil.copytree(small_base, tmp_path / "mixed")
    assert load_base(folder, folder, torch.float32, free_bytes=0).files
    for file in (folder / PARTS[kind]).glob("*.safetensors"):
        tensors = in_dtype(torch.bfloat16)(load_file(file))
        save_file(tensors, file)
    needed = bytes_of(small_base / PARTS[kind], torch.float32)
    load_base(folder, folder, torch.float32, free_bytes=needed)
    with pytest.raises(FileError, match="mixed: needs"):
        load_base(folder, folder, torch.float32, free_bytes=needed - 1)


def test_the_released_base_in_float32_needs_its_42_gigabytes(tmp_path, monkeypatch, released_transformer):
    from flexiact_core.cogvideox.parts import check_room, plan_part
    from flexiact_core.weight_files import StoredTensor

    file = tmp_path / "t.safetensors"
    with file.open("wb") as opened:
        opened.truncate(300_000_000)
    shapes = {key: tuple(value.shape) for key, value in released_transformer.state_dict().items()}
    contents = {key: StoredTensor(shape, "BF16", 0) for key, shape in shapes.items()}
    keys = {file: {key: key for key in shapes}}

    def plan(dtype):
        return plan_part("t", "transformer", released_transformer, keys, {file: contents}, lambda *_: dtype, "")

    assert plan(torch.bfloat16).count_bytes() == 0
    assert 22e9 < plan(torch.float32).count_bytes() < 23e9
    with pytest.raises(FileError, match=r"t: needs 22.\d GB of memory to load \(transformer 22.\d\), 20.0 GB are free"):
        check_room("t", [plan(torch.float32)], 20 * 10**9)
