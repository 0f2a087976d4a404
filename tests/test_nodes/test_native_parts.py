"""What a MODEL, CLIP and VAE of the small world are made from, kept in, and made anew from."""

from __future__ import annotations

import shutil

import pytest
import torch

from flexiact_core.world import shipped

NO_FILES = {"text_encoder": None, "vae": None}
CPU = torch.device("cpu")
TEXT_TOKENS = 16
FOLDER = shipped.base_folder()


def load(weights: str = "as stored", **files):
    from flexiact_pack.nodes.native_loading import load_native

    with torch.inference_mode():
        return load_native(FOLDER, FOLDER, NO_FILES | files, weights)


@pytest.fixture(scope="module")
def parts():
    import comfy.model_management

    yield load()
    comfy.model_management.unload_all_models()


def embeds(clip, text: str):
    with torch.inference_mode():
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0]


def picture():
    return torch.from_numpy(shipped.example("jump").image)[None]


@torch.inference_mode()
def clean(model, steps: int = 2):
    """Latents after a few steps without a prompt, and with the example's picture."""
    import comfy.sample
    from flexiact_pack.nodes.native_sampling import StartNoise, sampler_class, trailing_sigmas

    latent = torch.zeros(1, 16, 3, 8, 8)
    width = model.model.diffusion_model.patch_embed.text_proj.in_features
    image = torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    prompt = [[torch.zeros(1, TEXT_TOKENS, width), {"concat_latent_image": image}]]
    return comfy.sample.sample_custom(
        model, StartNoise(3).generate_noise({"samples": latent}), 1.0, sampler_class()("DDIM"),
        trailing_sigmas(model.get_model_object("model_sampling"), steps), prompt, prompt, latent, disable_pbar=True,
    )  # fmt: skip


def test_text_encoder_and_vae_may_be_single_files_of_the_users_own(parts, tmp_path):
    files = {
        "text_encoder": shutil.copyfile(FOLDER / "text_encoder" / "model.safetensors", tmp_path / "t5.safetensors"),
        "vae": shutil.copyfile(FOLDER / "vae" / "diffusion_pytorch_model.safetensors", tmp_path / "vae.safetensors"),
    }
    _, clip, vae = load(**files)
    text = shipped.example("jump").caption
    assert torch.equal(embeds(clip, text), embeds(parts[1], text))
    with torch.inference_mode():
        assert torch.equal(vae.encode(picture()), parts[2].encode(picture()))


@pytest.mark.parametrize("weights", ["fp8_e4m3fn", "fp8_e5m2"])
def test_eight_bit_weights_give_numbers_near_those_of_all_bits(parts, weights):
    model, *_ = load(weights)
    kinds = {value.dtype for key, value in model.model.diffusion_model.state_dict().items() if ".ff_out.weight" in key}
    assert kinds == {getattr(torch, weights.replace("fp8", "float8"))}
    expected, found = clean(parts[0]), clean(model)
    assert torch.isfinite(found).all()
    assert 1e-4 < (found - expected).abs().mean() / expected.abs().mean() < 0.5


def test_a_model_that_comfyui_makes_anew_is_the_same_over_weights_of_its_own(parts):
    model, _, vae = parts
    expected = clean(model)
    function, arguments = model.cached_patcher_init
    again = function(*arguments, disable_dynamic=True)
    copied = model.clone(force_deepcopy=True)
    for other in (again, copied):
        assert other.model.diffusion_model is not model.model.diffusion_model
        assert torch.equal(clean(other), expected)
    with torch.inference_mode():
        expected = vae.encode(picture())
        function, arguments = vae.patcher.cached_patcher_init
        vae.patcher = function(*arguments, disable_dynamic=True)
        assert vae.patcher.model is not vae.first_stage_model
        vae.first_stage_model = vae.patcher.model
        assert torch.equal(vae.encode(picture()), expected)


def test_an_action_on_a_copy_is_projected_by_the_copys_weights(parts):
    from flexiact_pack.nodes.native_action import with_action

    from flexiact_core.flexiact.bias import MotionBias
    from flexiact_core.flexiact.fae import load_fae

    acting = with_action(parts[0], ((load_fae(shipped.fae_path("jump")), 1.0),), MotionBias())
    expected = clean(acting)
    assert (expected - clean(parts[0])).abs().max() > 1e-3
    assert torch.equal(clean(acting.clone(force_deepcopy=True)), expected)


def test_a_prompt_of_300_tokens_is_cut_as_flexiact_sampler_cuts_it(parts):
    from flexiact_core.cogvideox.loading import load_base
    from flexiact_core.cogvideox.model import encode_prompt

    base = load_base(FOLDER, FOLDER, torch.float32)
    text = " ".join([shipped.example("jump").caption] * 60)
    assert len(base.tokenizer(text).input_ids) > 300
    own = encode_prompt(base.text_encoder, base.tokenizer, text, TEXT_TOKENS, CPU)
    torch.testing.assert_close(embeds(parts[1], text), own, rtol=0, atol=5e-6)
