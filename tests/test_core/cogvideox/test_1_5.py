"""CogVideoX 1.5: plain image-to-video is diffusers' own, and an action is learned on it."""

import pytest
import torch
from small_models import make_refadapter
from small_models_1_5 import make_base_1_5

from flexiact_core.cogvideox.encodings import encode_clips
from flexiact_core.cogvideox.loading import load_base
from flexiact_core.cogvideox.model import base_signature, clip_format, decode_latents, encode_pixels
from flexiact_core.cogvideox.sampling import Run, make_scheduler
from flexiact_core.errors import FileError
from flexiact_core.flexiact.fae import FAE
from flexiact_core.flexiact.fit import TOKENS, fit_fae
from flexiact_core.flexiact.refadapter import check_refadapter, load_refadapter, save_refadapter
from flexiact_core.flexiact.transfer import transfer_action
from flexiact_core.training import Course

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[True, False], ids=["inverted scale", "plain scale"])
def plain(request, tmp_path_factory):
    folder = make_base_1_5(tmp_path_factory.mktemp("plain") / "CogVideoX1.5", invert_scale=request.param)
    return load_base(folder, folder, torch.float32)


def embeds(count=1):
    return torch.randn(2, count, 8, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("width", "height", "num_frames"), [(64, 48, 9), (48, 80, 17), (64, 64, 13)])
def test_it_is_diffusers_own_pipeline(plain, width, height, num_frames):
    """Odd and even numbers of latent frames; the frames too, in wide and in high videos."""
    from diffusers import CogVideoXImageToVideoPipeline

    scheduler = make_scheduler(plain.scheduler_config, "DPM")
    pipeline = CogVideoXImageToVideoPipeline(
        plain.tokenizer, plain.text_encoder, plain.vae, plain.transformer, scheduler
    )
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(2))
    prompt, negative = embeds()
    asked = {
        "image": picture,
        "prompt_embeds": prompt,
        "negative_prompt_embeds": negative,
        "width": width,
        "height": height,
        "num_frames": num_frames,
        "num_inference_steps": 3,
        "guidance_scale": 4.0,
        "return_dict": False,
    }
    latents = pipeline(**asked, output_type="latent", generator=torch.Generator().manual_seed(7))[0]
    image = encode_pixels(plain.vae, picture[:, :, None] * 2 - 1, CPU)
    ours = transfer_action(plain, image, prompt, negative, Run(num_frames, CPU, 3, 4.0, seed=7))
    # diffusers gives its latents with those that fill the first patch, and drops them before it decodes.
    dropped = latents.shape[1] - ours.shape[1]
    assert dropped == (1 if (num_frames - 1) // 4 % 2 == 0 else 0)
    torch.testing.assert_close(ours, latents[:, dropped:], atol=1e-5, rtol=0)
    frames = pipeline(**asked, output_type="pt", generator=torch.Generator().manual_seed(7))[0]
    decoded = decode_latents(plain.vae, ours, CPU)
    torch.testing.assert_close((decoded / 2 + 0.5).clamp(0, 1).transpose(1, 2), frames, atol=1e-5, rtol=0)


def clips_of(base, num_frames=13):
    generator = torch.Generator().manual_seed(3)
    videos = [torch.rand(num_frames, 32, 32, 3, generator=generator) for _ in range(2)]
    prompt, empty = embeds()
    return encode_clips(base.vae, videos, prompt, empty, CPU)


def test_its_training_clips_fill_whole_patches(plain):
    form = clip_format(plain)
    assert (form.fps, form.frame_multiple, form.frame_offset, form.min_frames) == (16, 8, 5, 5)
    assert clips_of(plain).video.mean.shape[1] % 2 == 0


def test_an_action_is_learned_on_it_and_goes_on_bit_for_bit(plain, tmp_path):
    scheduler, clips = make_scheduler(plain.scheduler_config, "DPM"), clips_of(plain)

    def fit(steps, resume=None):
        course = Course(steps, 0.01, 4, CPU, resume=resume)
        return fit_fae(plain.transformer, scheduler, clips, course, num_tokens=5)

    whole, rest = fit(4), fit(4, fit(2))
    assert torch.equal(whole.parameters[TOKENS], rest.parameters[TOKENS])
    assert all(torch.isfinite(torch.as_tensor(whole.losses)))


def test_training_lowers_its_own_loss(plain):
    scheduler, clips = make_scheduler(plain.scheduler_config, "DPM"), clips_of(plain)
    course = Course(30, 0.05, 4, CPU, batch_size=4)
    state = fit_fae(plain.transformer, scheduler, clips, course, num_tokens=5)
    losses = torch.as_tensor(state.losses)
    assert losses[-10:].mean() < losses[:10].mean()


def test_the_pictures_of_its_clips_are_scaled_as_its_pictures_are(plain):
    clips = clips_of(plain)
    scale = plain.vae.config.scaling_factor
    assert clips.scaling_factor == scale
    assert clips.image_scale == pytest.approx(1 / scale if plain.vae.config.invert_scale_latents else scale)


def test_an_action_of_1_0_is_refused_on_it_though_its_sizes_fit(plain, base):
    config = plain.transformer.config
    tokens = torch.randn(config.num_layers, 6, 32)
    prompt, negative = embeds()
    image = encode_pixels(plain.vae, torch.zeros(1, 3, 1, 32, 32), CPU)
    own, other = (FAE(tokens, metadata={"base": base_signature(each.transformer)}) for each in (plain, base))
    transfer_action(plain, image, prompt, negative, Run(9, CPU, 1), faes=[(own, 1.0)])
    for action in (other, FAE(tokens, "released")):
        with pytest.raises(FileError, match="learned on cogvideox-i2v.*the loaded base is cogvideox1.5-i2v-2x32"):
            transfer_action(plain, image, prompt, negative, Run(9, CPU, 1), faes=[(action, 1.0)])


def test_an_adapter_of_1_0_is_refused_on_it_though_its_sizes_fit(plain, tmp_path):
    adapter = load_refadapter(make_refadapter(tmp_path / "released.pt"))
    with pytest.raises(FileError, match="RefAdapter 'released': learned on cogvideox-i2v"):
        check_refadapter(adapter, plain.transformer)
    own = {"base": base_signature(plain.transformer)}
    saved = save_refadapter(adapter, tmp_path / "own.safetensors", own)
    check_refadapter(load_refadapter(saved), plain.transformer)
