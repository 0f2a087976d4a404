import json
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from flexiact_core.amg.loading import load_adapter, load_amg, save_adapter
from flexiact_core.amg.model import Adapter, apply_adapter, inject_lora
from flexiact_core.amg.parts import has_parts, load_parts
from flexiact_core.amg.rehearsal import make_small_amg
from flexiact_core.amg.text import encode_prompt
from flexiact_core.errors import FileError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def released(released_file, components):
    return load_amg(released_file, torch.float32, components=components)


@pytest.fixture(scope="module")
def base_file(amg_golden, tmp_path_factory):
    """A ModelScope base in VGen's layout: four input channels and no LoRA."""
    state = {key: value for key, value in amg_golden.state.items() if "_lora." not in key}
    state["input_blocks.0.0.weight"] = state["input_blocks.0.0.weight"][:, :4].clone()
    file = tmp_path_factory.mktemp("base") / "model_scope_v1-4_0600000.pth"
    torch.save({"state_dict": state, "step": 600000}, file)
    return file


def forward(unet, io):
    model_input = torch.cat([io["in.noise"], io["in.avatar"]], dim=1)
    with torch.no_grad():
        return unet(model_input, 951, encoder_hidden_states=io["in.y"]).sample


def refuse(message, *arguments, **settings):
    with pytest.raises(FileError, match=message):
        load_amg(*arguments, torch.float32, **settings)


def test_the_releases_file_loads_and_computes_as_the_release(released, amg_golden):
    assert released.reads_avatar and released.name == "non_ema_0640000"
    found = forward(apply_adapter(released.unet, released.adapter), amg_golden.io)
    assert_close(found, amg_golden.io["out.eps_cond_t951"], atol=3e-5, rtol=0)
    for module in (released.unet, released.text_encoder, released.vae):
        assert not any(parameter.requires_grad or parameter.is_meta for parameter in module.parameters())
        assert not any(child.training for child in module.modules())


def test_what_is_loaded_no_longer_hangs_on_the_file(released_file, tmp_path):
    file = shutil.copy(released_file, tmp_path / "copy.pth")
    loaded = load_amg(file, torch.float32)
    before = loaded.unet.conv_in.weight.clone()
    file.write_bytes(b"\0" * file.stat().st_size)
    assert torch.equal(loaded.unet.conv_in.weight, before)


@pytest.mark.parametrize("names", ["released", "diffusers"])
def test_a_safetensors_file_of_either_naming_is_the_same_model(tmp_path, released, amg_golden, names):
    state = amg_golden.state
    if names == "diffusers":
        state = {**released.unet.state_dict(), **released.adapter.lora}
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "amg.safetensors")
    loaded = load_amg(tmp_path / "amg.safetensors", torch.float32)
    assert_same(loaded.unet.state_dict(), released.unet.state_dict())
    assert_same(loaded.adapter.tensors(), released.adapter.tensors())


def test_a_diffusers_folder_is_the_same_model(tmp_path, released):
    apply_adapter(released.unet, released.adapter).save_pretrained(tmp_path / "ms" / "unet")
    loaded = load_amg(tmp_path / "ms", torch.float32)
    assert not loaded.adapter.lora
    assert_same(loaded.unet.state_dict(), apply_adapter(released.unet, released.adapter).state_dict())


def test_a_base_of_four_channels_is_widened_and_sees_no_avatar(base_file, amg_golden):
    loaded = load_amg(base_file, torch.float32)
    assert not loaded.reads_avatar and loaded.unet.config.in_channels == 8
    weight = amg_golden.state["input_blocks.0.0.weight"]
    assert torch.equal(loaded.unet.conv_in.weight[:, :4], weight[:, :4])
    assert not loaded.unet.conv_in.weight[:, 4:].any()
    io = dict(amg_golden.io)
    first = forward(loaded.unet, io)
    io["in.avatar"] = io["in.avatar"] * 3
    assert torch.equal(forward(loaded.unet, io), first)


def test_a_base_with_the_adapter_of_the_release_is_the_release(base_file, released, tmp_path):
    file = save_adapter(released.adapter, tmp_path / "mine.safetensors")
    loaded = load_amg(base_file, torch.float32, adapter=file)
    assert loaded.reads_avatar
    expected = {key: value.half().float() for key, value in released.adapter.tensors().items()}
    assert_same(loaded.adapter.tensors(), expected)
    state = apply_adapter(loaded.unet, loaded.adapter).state_dict()
    whole = apply_adapter(released.unet, loaded.adapter).state_dict()
    assert_same(state, whole)


def test_an_adapter_of_released_size_has_3_4_megabytes(amg_golden, tmp_path):
    shapes = amg_golden.json("release_keys").values()
    learned = {
        entry["diffusers"]: torch.zeros(entry["shape"])
        for entry in shapes
        if ".lora_" in entry["diffusers"] or entry["diffusers"].startswith("conv_in")
    }
    conv_in = {key: learned.pop(key) for key in ("conv_in.weight", "conv_in.bias")}
    file = save_adapter(Adapter(learned, conv_in), tmp_path / "adapter.safetensors")
    assert len(load_adapter(file).tensors()) == 530 and 3.3e6 < file.stat().st_size < 3.5e6


def test_merging_and_injecting_leave_the_unet_as_it_is(released):
    before = {key: value.clone() for key, value in released.unet.state_dict().items()}
    merged, injected = apply_adapter(released.unet, released.adapter), inject_lora(released.unet, released.adapter.lora)
    assert_same(released.unet.state_dict(), before)
    assert merged.conv_out is released.unet.conv_out, "weights that do not change are shared"
    assert any(".lora_" in name for name, _ in injected.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_all_parts_take_the_dtype_asked_for(released_file, components, dtype):
    loaded = load_amg(released_file, dtype, components=components)
    for module in (loaded.unet, loaded.vae, loaded.text_encoder):
        assert {parameter.dtype for parameter in module.parameters()} == {dtype}


def test_the_text_of_no_words_comes_from_a_file_wherever_it_was_saved(released_file, amg_golden, tmp_path):
    zero = amg_golden.io["in.zero_y"][:1]
    torch.save(zero, tmp_path / "zero_y.pt")
    saved_on_gpu = tmp_path / "gpu.pt"
    with zipfile.ZipFile(tmp_path / "zero_y.pt") as old, zipfile.ZipFile(saved_on_gpu, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in content
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            new.writestr(name.replace("zero_y", "gpu"), content)
    for file in (tmp_path / "zero_y.pt", saved_on_gpu):
        assert torch.equal(load_amg(released_file, torch.float32, zero_text=file).zero_text, zero)
    torch.save(torch.zeros(1, 77, 768), tmp_path / "other.pt")
    refuse(
        r"other.pt: text of width 768 \(Stable Diffusion 1.x\) found, 1024",
        released_file,
        zero_text=tmp_path / "other.pt",
    )
    torch.save(torch.zeros(3, 77, 1024), tmp_path / "many.pt")
    refuse("many.pt: 1 x tokens x width expected", released_file, zero_text=tmp_path / "many.pt")


def test_an_adapter_alone_is_no_model(tmp_path, released):
    file = save_adapter(released.adapter, tmp_path / "mine.safetensors")
    refuse("mine.safetensors: this is an adapter, without the base it goes with", file)


def test_an_adapter_of_another_size_is_refused(base_file, tmp_path, small):
    state = small.unet.state_dict()
    adapter = Adapter({}, {key: state[key] for key in ("conv_in.weight", "conv_in.bias")})
    file = save_adapter(adapter, tmp_path / "mine.safetensors")
    refuse("mine: .*tensors of another shape.*made for a base of another size", base_file, adapter=file)


def test_a_model_is_no_adapter(base_file, tmp_path, small):
    save_file(small.unet.state_dict(), tmp_path / "whole.safetensors")
    refuse("whole.safetensors: this is no AMG adapter", base_file, adapter=tmp_path / "whole.safetensors")


def test_a_checkpoint_that_would_run_code_is_refused_and_a_safetensors_file_named(tmp_path):
    class Callback:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"state_dict": {}, "callbacks": Callback()}, tmp_path / "v2-1_512-ema-pruned.ckpt")
    refuse("asks to run code.*or a .safetensors version", tmp_path / "v2-1_512-ema-pruned.ckpt")
    with pytest.raises(FileError, match="asks to run code.*or a .safetensors version"):
        load_parts(tmp_path / "v2-1_512-ema-pruned.ckpt", torch.float32)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_another_model_is_refused_with_the_keys_found(tmp_path, suffix):
    state, file = {"transformer_blocks.0.attn1.x": torch.zeros(2)}, tmp_path / f"fae{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    refuse(r"fae.*: no video UNet of ModelScope's kind in it \(keys begin with transformer_blocks\)", file)


def test_a_file_that_lacks_keys_is_refused_with_their_names(amg_golden, tmp_path):
    state = dict(amg_golden.state)
    del state["out.2.bias"]
    del state["middle_block.1.transformer_blocks.0.attn1.to_q_lora.up_linear.weight"]
    torch.save({"state_dict": state}, tmp_path / "cut.pth")
    refuse("cut.pth: 2 keys missing .*conv_out.bias", tmp_path / "cut.pth")


def test_an_image_model_is_refused_with_the_keys_found(amg_golden, tmp_path):
    state = dict(amg_golden.state) | {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "sd.ckpt")
    refuse("sd.ckpt: 1 keys are of no video UNet", tmp_path / "sd.ckpt")


def test_an_input_layer_of_another_kind_is_refused(amg_golden, tmp_path):
    state = dict(amg_golden.state) | {"input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}
    torch.save(state, tmp_path / "inpaint.pth")
    refuse("inpaint.pth: 9 input channels found, 8 needed", tmp_path / "inpaint.pth")


def edited(folder, target, part, **fields):
    target = shutil.copytree(folder, target)
    file = target / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return target


def test_parts_of_stable_diffusion_1_are_refused_by_their_width(released_file, small, components, tmp_path):
    folder = shutil.copytree(components, tmp_path / "sd15")
    shutil.rmtree(folder / "text_encoder")
    make_small_amg(text_width=768).text_encoder.save_pretrained(folder / "text_encoder")
    refuse(r"sd15: text of width 768 \(Stable Diffusion 1.x\) found, 1024 needed", released_file, components=folder)


def test_a_vae_of_16_channels_is_refused(released_file, components, tmp_path):
    folder = edited(components, tmp_path / "flux", "vae", latent_channels=16)
    refuse("flux: its VAE has 16 latent channels, 4 needed", released_file, components=folder)


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer", "vae"])
def test_a_missing_part_is_named(released_file, components, tmp_path, part):
    folder = shutil.copytree(components, tmp_path / "parts")
    shutil.rmtree(folder / part)
    assert has_parts(components) and not has_parts(folder)
    refuse(f"parts: no {part} folder in it", released_file, components=folder)


def test_text_and_vae_of_a_folder_are_those_that_the_libraries_load(released, components):
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    ids, pixels = torch.arange(5)[None], torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        theirs = CLIPTextModel.from_pretrained(components / "text_encoder").eval()
        # Where weights lie in memory can decide in which order a processor adds.
        torch.testing.assert_close(
            released.text_encoder(ids).last_hidden_state, theirs(ids).last_hidden_state, rtol=0, atol=1e-6
        )
        vae = AutoencoderKL.from_pretrained(components / "vae").eval()
        torch.testing.assert_close(
            released.vae.encode(pixels).latent_dist.mean, vae.encode(pixels).latent_dist.mean, rtol=0, atol=1e-6
        )


def test_a_text_encoder_saved_by_an_older_transformers_loads(components, tmp_path, released):
    folder = shutil.copytree(components, tmp_path / "old")
    weights = folder / "text_encoder" / "model.safetensors"
    state = {key.removeprefix("text_model."): value for key, value in load_file(weights).items()}
    for prefix in ("", "text_model."):
        renamed = {prefix + key: value.clone() for key, value in state.items()}
        renamed["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        save_file(renamed, weights)
        encoder, tokenizer, _ = load_parts(folder, torch.float32)
        expected = encode_prompt(released.text_encoder, released.tokenizer, "a man", CPU)
        assert torch.equal(encode_prompt(encoder, tokenizer, "a man", CPU), expected)


def test_a_checkpoint_without_text_and_vae_is_refused(tmp_path):
    save_file({"model.diffusion_model.x": torch.zeros(1)}, tmp_path / "unet.safetensors")
    with pytest.raises(FileError, match="unet.safetensors: no text encoder and VAE of Stable Diffusion 2.x in it"):
        load_parts(tmp_path / "unet.safetensors", torch.float32)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
