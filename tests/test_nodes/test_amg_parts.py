"""Stable Diffusion 2.1's text encoder and VAE: from a checkpoint, from a folder, and ComfyUI's own, give the same."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

pack = pytest.importorskip("flexiact_pack.nodes", reason="There is no ComfyUI to import the nodes in: `make setup`.")

from flexiact_pack.nodes import amg_parts  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from flexiact_core.amg.parts import TEXT_PREFIX, VAE_PREFIX, load_parts  # noqa: E402
from flexiact_core.amg.pictures import decode_latents, draw_latents, encode_frames  # noqa: E402
from flexiact_core.amg.rehearsal import make_small_amg  # noqa: E402
from flexiact_core.amg.text import count_tokens, encode_prompt, tokenize  # noqa: E402
from flexiact_core.errors import FileError  # noqa: E402

CPU = torch.device("cpu")
WIDTH, LAYERS = 64, 3
SAME = {"atol": 3e-6, "rtol": 0}
# A VAE of random weights makes large numbers on its way.
SAME_PICTURE = {"atol": 5e-5, "rtol": 5e-5}
PROMPTS = ["", "A man in a white shirt, and a woman in a yellow dress (waving).", "snow falls on the hill, " * 30]

pytestmark = pytest.mark.usefixtures("running_node")


def random_tensors(module, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) * (0.02 if value.ndim > 1 else 0.1) + (value.ndim == 1)
        for key, value in module.state_dict().items()
    }


@pytest.fixture(scope="module")
def open_clip():
    """The text tower of OpenCLIP as a checkpoint names it, small: three layers, of which the release reads two."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=generator) * 0.05

    state = {
        "token_embedding.weight": draw(49408, WIDTH), "positional_embedding": draw(77, WIDTH),
        "ln_final.weight": 1 + draw(WIDTH), "ln_final.bias": draw(WIDTH), "text_projection": draw(WIDTH, WIDTH),
    }  # fmt: skip
    for layer in range(LAYERS):
        of = f"transformer.resblocks.{layer}."
        for name, shape in (
            ("ln_1", (WIDTH,)), ("ln_2", (WIDTH,)), ("attn.in_proj", (3 * WIDTH, WIDTH)),
            ("attn.out_proj", (WIDTH, WIDTH)), ("mlp.c_fc", (128, WIDTH)), ("mlp.c_proj", (WIDTH, 128)),
        ):  # fmt: skip
            dot = "_" if name.endswith("in_proj") else "."
            state[f"{of}{name}{dot}weight"] = draw(*shape) + (1 if "ln" in name else 0)
            state[f"{of}{name}{dot}bias"] = draw(shape[0])
    return state


@pytest.fixture(scope="module")
def host_vae():
    """ComfyUI's own VAE of Stable Diffusion, small and random, and its tensors by the names of a checkpoint."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = {
        "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    module = AutoencoderKL(ddconfig=config, embed_dim=4)
    state = random_tensors(module, 2)
    module.load_state_dict(state)
    return module.eval(), state


@pytest.fixture(scope="module")
def checkpoint(open_clip, host_vae, tmp_path_factory):
    """Text encoder and VAE as v2-1_512-ema-pruned.safetensors holds them, beside an image model."""
    file = tmp_path_factory.mktemp("sd") / "v2-1_512-ema-pruned.safetensors"
    state = {TEXT_PREFIX + key: value for key, value in open_clip.items()}
    state |= {VAE_PREFIX + key: value.clone() for key, value in host_vae[1].items()}
    save_file(state | {"model.diffusion_model.out.2.bias": torch.zeros(4)}, file)
    return file


@pytest.fixture(scope="module")
def own(checkpoint):
    return load_parts(checkpoint, torch.float32, amg_parts.tokenizer_folder())


@pytest.fixture(scope="module")
def clip(open_clip):
    """ComfyUI's CLIP of Stable Diffusion 2, small, with the same weights."""
    import comfy.sd1_clip
    import comfy.text_encoders.sd2_clip as sd2
    import comfy.utils

    class SmallH(comfy.sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            config = {
                "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 49407,
                "hidden_act": "gelu", "hidden_size": WIDTH, "initializer_factor": 1.0, "initializer_range": 0.02,
                "intermediate_size": 128, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
                "model_type": "clip_text_model", "num_attention_heads": 1, "num_hidden_layers": LAYERS,
                "pad_token_id": 1, "projection_dim": WIDTH, "torch_dtype": "float32", "vocab_size": 49408,
            }  # fmt: skip
            super().__init__(
                device=device, dtype=torch.float32, layer="hidden", layer_idx=-2, textmodel_json_config=config,
                special_tokens={"start": 49406, "end": 49407, "pad": 0}, return_projected_pooled=True, model_options={},
            )  # fmt: skip

    encoder = SmallH()
    renamed = comfy.utils.clip_text_transformers_convert({f"x.{k}": v.clone() for k, v in open_clip.items()}, "x.", "")
    encoder.load_sd({key: value for key, value in renamed.items()})

    class Clip:
        tokenizer = sd2.SD2Tokenizer()

        def tokenize(self, text, return_word_ids=False, **settings):
            return self.tokenizer.tokenize_with_weights(text, return_word_ids, **settings)

        def encode_from_tokens(self, tokens):
            return encoder.encode_token_weights(tokens["h"])[0]

    return Clip()


def test_a_checkpoints_text_encoder_is_comfyuis_clip(own, clip, monkeypatch):
    encoder, tokenizer, _ = own
    unet = make_small_amg(text_width=WIDTH).unet
    words = amg_parts.HostWords(clip, unet)
    for prompt in PROMPTS:
        assert words.count(prompt) == count_tokens(tokenizer, prompt)
        for long in ("cut", "chunks"):
            assert_close(words.encode(prompt, long), encode_prompt(encoder, tokenizer, prompt, CPU, long), **SAME)
    assert words.encode(PROMPTS[2], "chunks").shape[1] > 77


def test_our_tokens_are_comfyuis(own, clip):
    for prompt in PROMPTS:
        theirs = clip.tokenize(prompt, disable_weights=True)["h"]
        assert tokenize(own[1], prompt, long="chunks").tolist() == [[token for token, _ in piece] for piece in theirs]


def test_a_checkpoints_vae_is_comfyuis(own, host_vae):
    vae, theirs = own[2], host_vae[0]
    frames, latents = torch.rand(2, 32, 32, 3), torch.randn(1, 4, 2, 4, 4)
    with torch.no_grad():
        mean = theirs.encode(frames.permute(0, 3, 1, 2) * 2 - 1)
        pixels = theirs.decode(latents[0].transpose(0, 1) / 0.18215)
    assert_close(encode_frames(vae, frames, CPU)[:, :4], mean, **SAME_PICTURE)
    expected = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert_close(decode_latents(vae, latents, CPU), expected, **SAME_PICTURE)


class HostVae:
    """What ComfyUI's VAE socket carries, over a module."""

    latent_channels, downscale_ratio = 4, 8

    def __init__(self, module):
        self.module = module

    def encode(self, frames):
        return self.module.encode(frames.permute(0, 3, 1, 2) * 2 - 1)

    def decode(self, latents):
        return (self.module.decode(latents) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


@torch.no_grad()
def test_pictures_over_the_vae_socket_are_our_own_without_the_draw(own, host_vae):
    pictures, own_pictures = amg_parts.HostPictures(HostVae(host_vae[0])), amg_parts.OwnPictures(own[2])
    frames, latents = torch.rand(2, 32, 32, 3), torch.randn(1, 4, 2, 4, 4)
    drawn = draw_latents(pictures.parameters(frames), pictures.scale, torch.Generator().manual_seed(0))
    assert_close(drawn, draw_latents(own_pictures.parameters(frames), own_pictures.scale, None), **SAME_PICTURE)
    assert_close(pictures.decode(latents), own_pictures.decode(latents), **SAME_PICTURE)


def test_sockets_go_before_the_models_own_parts_and_must_fit(clip, host_vae):
    amg = make_small_amg(text_width=WIDTH)
    model = amg_parts.to_amg_model(amg, clip, HostVae(host_vae[0]))
    assert isinstance(model.words, amg_parts.HostWords) and isinstance(model.pictures, amg_parts.HostPictures)
    with pytest.raises(FileError, match="clip: text of width 64 found, 32 needed. Use the text encoder of Stable Diff"):
        amg_parts.to_amg_model(make_small_amg(), clip)
    wide = HostVae(host_vae[0])
    wide.latent_channels = 16
    with pytest.raises(FileError, match="vae: 16 latent channels found, 4 needed"):
        amg_parts.to_amg_model(amg, None, wide)


def test_cancel_ends_text_encoder_and_vae_within_a_layer(monkeypatch):
    import comfy.model_management as management

    model = amg_parts.to_amg_model(make_small_amg())
    asked = []

    def cancel_at_second():
        asked.append(1)
        if len(asked) == 2:
            raise management.InterruptProcessingException

    frames, latents = torch.rand(9, 16, 16, 3), torch.zeros(1, 4, 9, 2, 2)
    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", cancel_at_second)
    for call in (
        lambda: model.words.encode("a prompt of its own", "cut"),
        lambda: model.pictures.parameters(frames),
        lambda: model.pictures.decode(latents),
    ):
        asked.clear()
        with pytest.raises(management.InterruptProcessingException):
            call()
        assert len(asked) == 2
        call()  # and what was cancelled is not taken for done
