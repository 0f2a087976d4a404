import pytest
import torch

from flexiact_core.world.making.models import (
    MAX_TEXT_TOKENS,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_transformer,
    make_vae,
    save_base,
)
from flexiact_core.world.scenes import caption, sample_scene


def test_every_caption_word_is_one_known_token():
    tokenizer = make_tokenizer()
    text = caption(sample_scene(0), "jump")
    tokens = tokenizer(text).input_ids
    assert len(tokens) == len(text.split()) + 1 <= MAX_TEXT_TOKENS
    assert tokenizer.unk_token_id not in tokens


def test_a_word_outside_the_world_is_unknown():
    tokenizer = make_tokenizer()
    assert tokenizer.unk_token_id in tokenizer("a red zebra").input_ids


def test_the_scheduler_is_the_5bs():
    config = make_scheduler().config
    assert config.prediction_type == "v_prediction" and config.timestep_spacing == "trailing"
    assert config.rescale_betas_zero_snr and config.beta_schedule == "scaled_linear"
    assert (config.beta_start, config.beta_end) == (0.00085, 0.012)


def test_the_vae_gives_back_17_frames_of_5_latent_frames():
    vae = make_vae().eval()
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 17, 64, 64)).latent_dist.mode()
        assert latents.shape == (1, 16, 5, 8, 8)
        assert vae.decode(latents).sample.shape == (1, 3, 17, 64, 64)


def test_a_fresh_transformer_says_nothing():
    transformer = make_transformer()
    assert not transformer.proj_out.weight.any()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "base"
    save_base(folder, vae=make_vae(), transformer=make_transformer(), text_encoder=make_text_encoder())
    return folder


def test_diffusers_reads_the_saved_base(saved):
    from diffusers import CogVideoXImageToVideoPipeline

    pipeline = CogVideoXImageToVideoPipeline.from_pretrained(saved)
    assert type(pipeline.transformer).__name__ == "CogVideoXTransformer3DModel"
    assert len(pipeline.tokenizer("a red circle").input_ids) == 4


def test_the_packs_own_loader_reads_the_saved_base(saved):
    from flexiact_core.cogvideox.loading import load_base

    base = load_base(saved, saved, torch.float32)
    assert base.transformer.config.num_layers == 7
    assert base.vae.config.sample_width == 64


def test_all_weights_together_are_under_20_mb_and_no_file_over_16(saved):
    sizes = [file.stat().st_size for file in saved.rglob("*") if file.is_file()]
    assert max(sizes) < 16e6
    # Adapters and embeddings take up to another megabyte.
    assert sum(sizes) < 19.3e6
