import copy

import pytest
import torch

from flexiact_core.cogvideox.model import (
    Posterior,
    QuickConvolutions,
    base_signature,
    count_tokens,
    decode_latents,
    encode_pixels,
    encode_prompt,
    fit_preview,
    for_num_latent_frames,
    native_size,
    pad_image_latents,
    preview_frame,
    rotary_positions,
    sample_posterior,
)

CPU = torch.device("cpu")


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def run(transformer, num_latent_frames):
    config = transformer.config
    height, width = config.sample_height, config.sample_width
    return transformer(
        hidden_states=seeded(1, num_latent_frames, config.in_channels, height, width),
        encoder_hidden_states=seeded(1, config.max_text_seq_length, config.text_embed_dim),
        timestep=torch.tensor([500]),
        image_rotary_emb=rotary_positions(config, num_latent_frames, height, width),
        return_dict=False,
    )[0]


def test_a_signature_tells_the_sizes_that_files_must_fit(base):
    assert base_signature(base.transformer) == "cogvideox-i2v-2x32"


def test_the_native_size_is_what_the_base_was_trained_on(base):
    assert native_size(base) == (64, 64, 17)


def test_fewer_frames_use_the_first_learned_positions(base):
    transformer = base.transformer
    config = transformer.config
    patches = (config.sample_height // 2) * (config.sample_width // 2)
    short = for_num_latent_frames(transformer, 3)
    expected = copy.deepcopy(transformer)
    # Positions of later frames changed: a short video must not notice.
    expected.patch_embed.pos_embedding[:, config.max_text_seq_length + 3 * patches :] += 7
    assert torch.equal(run(short, 3), run(for_num_latent_frames(expected, 3), 3))
    assert not torch.equal(run(expected, 5), run(transformer, 5))
    expected.patch_embed.pos_embedding[:, config.max_text_seq_length + 3 * patches - 1] += 7
    assert not torch.equal(run(short, 3), run(for_num_latent_frames(expected, 3), 3))


def test_fewer_frames_leave_the_transformer_as_it_is(base):
    before, shape = run(base.transformer, 5), base.transformer.patch_embed.pos_embedding.shape
    run(for_num_latent_frames(base.transformer, 1), 1)
    assert base.transformer.patch_embed.pos_embedding.shape == shape
    assert torch.equal(run(base.transformer, 5), before)


def test_the_trained_number_of_frames_is_the_transformer_itself(base):
    assert for_num_latent_frames(base.transformer, 5) is base.transformer


def test_rotary_positions_count_frames_and_spread_over_the_training_grid():
    config = {"use_rotary_positional_embeddings": True, "patch_size": 2, "attention_head_dim": 64}
    cos, sin = rotary_positions(config, 3, 60, 90)
    assert cos.shape == sin.shape == (3 * 30 * 45, 64)
    torch.testing.assert_close(cos**2 + sin**2, torch.ones_like(cos), rtol=1e-5, atol=1e-05)
    # The first 16 of 64 channels turn with the frame, at the frame's number times falling frequencies.
    frequencies = 1 / 10000 ** (torch.arange(0, 16, 2) / 16)
    for frame in range(3):
        first_patch = cos[frame * 30 * 45, :16:2]
        torch.testing.assert_close(first_patch, torch.cos(frame * frequencies), rtol=1e-5, atol=1e-05)
    small = rotary_positions(config, 3, 30, 44)[0]
    assert not torch.allclose(small[1], cos[1]), "half the size takes steps of two base patches"


# Worked out by hand: the patches are fitted into 30 rows x 45 columns, centred, and the end is left out.
PLACES = {
    "5:4, fitted in height, 40 of 45 columns from 2": (3, 4, [0, 10, 20], [2, 12, 22, 32]),
    "tall, 15 columns from 15": (4, 2, [0, 7.5, 15, 22.5], [15, 22.5]),
    "wide, 15 rows from 8": (2, 6, [8, 15.5], [0, 7.5, 15, 22.5, 30, 37.5]),
    "3:2, the whole rectangle": (2, 3, [0, 15], [0, 15, 30]),
}


def tables_at(row_places, column_places, num_frames):
    """Cosines and sines of head width 32, patch by patch: 8 channels turn with the frame, 12 each with row, column."""
    angles = []
    for frame in range(num_frames):
        for row in row_places:
            for column in column_places:
                patch = []
                for place, width in ((frame, 8), (row, 12), (column, 12)):
                    for pair in range(width // 2):
                        patch += [place / 10000 ** (2 * pair / width)] * 2
                angles.append(patch)
    angles = torch.tensor(angles, dtype=torch.float64)
    return angles.cos().float(), angles.sin().float()


@pytest.mark.parametrize(("rows", "columns", "row_places", "column_places"), PLACES.values(), ids=PLACES)
def test_patches_lie_where_the_release_laid_them(rows, columns, row_places, column_places):
    config = {"use_rotary_positional_embeddings": True, "patch_size": 2, "attention_head_dim": 32}
    found = rotary_positions(config, 2, 2 * rows, 2 * columns)
    for ours, expected in zip(found, tables_at(row_places, column_places, 2), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=5e-6)


def test_a_config_can_say_that_its_weights_learned_the_other_spacing():
    config = {"use_rotary_positional_embeddings": True, "patch_size": 2, "attention_head_dim": 32}
    found = rotary_positions(config | {"rotary_spacing": "scaled_stop"}, 2, 6, 8)
    for ours, expected in zip(found, tables_at([0, 10, 20], [2, 2 + 29.5 / 3, 2 + 59 / 3, 31.5], 2), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=5e-6)


def test_the_small_world_learned_the_spacing_of_the_release():
    from flexiact_core.cogvideox.loading import load_base
    from flexiact_core.world.shipped import base_folder

    config = load_base(base_folder(), base_folder(), torch.float32).transformer.config
    # 64 x 64 pixels are 4 x 4 patches, fitted in height: 30 rows from 0, 30 of 45 columns from 8.
    found = rotary_positions(config, 2, 8, 8)
    for ours, expected in zip(found, tables_at([0, 7.5, 15, 22.5], [8, 15.5, 23, 30.5], 2), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=5e-6)


def test_a_base_without_rotary_positions_has_none():
    assert rotary_positions({"use_rotary_positional_embeddings": False}, 3, 60, 90) is None


def test_a_prompt_is_padded_to_the_length(base):
    short = encode_prompt(base.text_encoder, base.tokenizer, "a cat", 32, CPU)
    assert short.shape == (1, 32, base.text_encoder.config.d_model)
    # A space, "a", " cat", a comma and the end: words are pieces of the small vocabulary.
    assert count_tokens(base.tokenizer, "a cat,") == 5


def test_an_empty_prompt_is_allowed(base):
    empty = encode_prompt(base.text_encoder, base.tokenizer, "", 32, CPU)
    assert empty.shape == (1, 32, base.text_encoder.config.d_model)
    assert torch.isfinite(empty).all()
    assert count_tokens(base.tokenizer, "") == 1
    assert not torch.equal(empty, encode_prompt(base.text_encoder, base.tokenizer, "a cat", 32, CPU))


def test_a_prompt_of_10_000_characters_is_cut_and_its_length_can_be_told(base):
    prompt = ("the quick brown fox jumps over the lazy dog " * 230)[:10_000]
    tokens = base.tokenizer(prompt).input_ids
    assert count_tokens(base.tokenizer, prompt) == len(tokens) > 5000
    long = encode_prompt(base.text_encoder, base.tokenizer, prompt, 32, CPU)
    expected = base.text_encoder(torch.tensor([[*tokens[:31], 1]]))[0]
    assert long.shape == (1, 32, base.text_encoder.config.d_model)
    assert torch.equal(long, expected)


def test_encoding_keeps_no_gradient(base):
    trainable = copy.deepcopy(base.text_encoder).requires_grad_()
    assert not encode_prompt(trainable, base.tokenizer, "a cat", 32, CPU).requires_grad
    posterior = encode_pixels(copy.deepcopy(base.vae).requires_grad_(), torch.zeros(1, 3, 1, 16, 16), CPU)
    assert not posterior.mean.requires_grad and not posterior.std.requires_grad


def test_a_posterior_is_the_vaes_own_with_frames_first(base):
    pixels = seeded(1, 3, 9, 32, 48).clamp(-1, 1)
    posterior = encode_pixels(base.vae, pixels, CPU)
    with torch.no_grad(), QuickConvolutions():
        expected = base.vae.encode(pixels).latent_dist
    assert posterior.mean.shape == posterior.std.shape == (1, 3, 16, 4, 6)
    assert torch.equal(posterior.mean, expected.mean.transpose(1, 2))
    assert torch.equal(posterior.std, expected.std.transpose(1, 2))


def test_a_sample_of_a_posterior_is_scaled_and_follows_its_generator():
    posterior = Posterior(seeded(1, 2, 16, 4, 6), torch.full((1, 2, 16, 4, 6), 0.5))
    first, again, other = (sample_posterior(posterior, 0.7, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    noise = seeded(1, 2, 16, 4, 6, seed=3)
    torch.testing.assert_close(first, (posterior.mean + 0.5 * noise) * 0.7, rtol=1e-5, atol=1e-8)
    sure = Posterior(posterior.mean, torch.zeros_like(posterior.std))
    torch.testing.assert_close(
        sample_posterior(sure, 0.7, torch.Generator()), posterior.mean * 0.7, rtol=1e-5, atol=1e-8
    )


def test_the_condition_is_the_image_in_frame_0_and_zeros_after():
    image = seeded(2, 1, 16, 4, 6)
    padded = pad_image_latents(image, 5)
    assert padded.shape == (2, 5, 16, 4, 6)
    assert torch.equal(padded[:, :1], image) and not padded[:, 1:].any()
    assert torch.equal(pad_image_latents(image, 1), image)


def test_decoding_undoes_the_scale(base):
    latents = seeded(1, 3, 16, 4, 6)
    pixels = decode_latents(base.vae, latents, CPU)
    with torch.no_grad(), QuickConvolutions():
        expected = base.vae.decode(latents.transpose(1, 2) / base.vae.config.scaling_factor).sample
    assert pixels.shape == (1, 3, 9, 32, 48)
    assert torch.equal(pixels, expected)


@torch.no_grad()
def test_quick_convolutions_differ_from_diffusers_own_in_rounding_only(base):
    video, latents = seeded(1, 3, 9, 32, 48).clamp(-1, 1), seeded(1, 16, 3, 4, 6)
    with QuickConvolutions():
        posterior, pixels = base.vae.encode(video).latent_dist, base.vae.decode(latents).sample
    torch.testing.assert_close(posterior.mean, base.vae.encode(video).latent_dist.mean)
    torch.testing.assert_close(pixels, base.vae.decode(latents).sample)


def slow_convolutions(call):
    """How often `call` made torch use its own kernel for a convolution over space."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        call()
    shapes = [event.input_shapes[1] for event in profile.events() if event.name == "aten::slow_conv3d_forward"]
    return sum(max(shape[2:]) > 1 for shape in shapes)


@torch.no_grad()
@pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="oneDNN is quicker on x86 processors"
)
def test_a_small_video_is_not_left_to_torchs_slow_convolution(base):
    video, latents = seeded(1, 3, 9, 32, 48), seeded(1, 3, 16, 4, 6)
    assert slow_convolutions(lambda: base.vae.encode(video)) > 0  # or nothing would be shown below
    assert slow_convolutions(lambda: encode_pixels(base.vae, video, CPU)) == 0
    assert slow_convolutions(lambda: decode_latents(base.vae, latents, CPU)) == 0


def test_a_preview_shows_a_pictures_colours_from_its_latent():
    # A latent as a VAE would make it: colours in a mix of channels, and channels that say something else.
    blocks = torch.rand(1, 8, 12, 3, generator=torch.Generator().manual_seed(1))
    image = blocks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    latent = torch.einsum("bhwc,cd->bdhw", blocks - 0.5, seeded(3, 16, seed=2))[:, None]
    latent[:, :, 10:] = seeded(1, 1, 6, 8, 12, seed=3)
    shown = preview_frame(latent, fit_preview(image, latent), 0)
    assert shown.shape == (8, 12, 3)
    torch.testing.assert_close(shown, blocks[0], rtol=0, atol=0.02)


def test_a_preview_of_the_small_vae_is_nearer_to_the_picture_than_its_mean_colour(base):
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    image = torch.stack([x, y, 1 - x * y], dim=-1)[None]
    latent = encode_pixels(base.vae, image.permute(3, 0, 1, 2)[None] * 2 - 1, CPU).mean * 0.7
    shown = preview_frame(latent, fit_preview(image, latent), 0)
    blocks = image[0].unflatten(0, (8, 8)).unflatten(2, (8, 8)).mean((1, 3))
    assert (shown - blocks).square().mean() < 0.5 * (blocks - blocks.mean((0, 1))).square().mean()


def test_a_preview_of_one_colour_stays_in_range():
    image, latent = torch.full((1, 64, 96, 3), 0.25), seeded(1, 1, 16, 8, 12)
    preview = fit_preview(image, latent)
    assert torch.isfinite(preview).all()
    shown = preview_frame(seeded(1, 3, 16, 8, 12, seed=9) * 20, preview, 2)
    assert shown.min() >= 0 and shown.max() <= 1


class Stop(Exception):
    pass


def parts_of(call):
    """What a long call reported, and what it gave."""
    heard = []
    return call(lambda done, total: heard.append((done, total))), heard


def stopped_at(call, part):
    def on_part(done, _total):
        if done == part:
            raise Stop

    with pytest.raises(Stop):
        call(on_part)


def long_calls(base):
    """The calls that take minutes at full size, by name; each takes on_part."""
    video = torch.rand(1, 3, 17, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = torch.randn(1, 5, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    return {
        "text": lambda on_part=None: encode_prompt(base.text_encoder, base.tokenizer, "a cat", 16, CPU, on_part),
        "frames": lambda on_part=None: encode_pixels(base.vae, video, CPU, on_part).mean,
        "one tile": lambda on_part=None: decode_latents(base.vae, latents[..., :6, :6], CPU, (64, 64), on_part),
        "tiles": lambda on_part=None: decode_latents(base.vae, latents, CPU, (64, 64), on_part),
    }


@pytest.mark.parametrize("name", ["text", "frames", "one tile", "tiles"])
def test_a_long_call_reports_each_of_its_parts_and_gives_the_same(base, name):
    call = long_calls(base)[name]
    given, heard = parts_of(call)
    assert torch.equal(given, call())
    assert heard == [(done, len(heard)) for done in range(len(heard))]
    # A layer at a time, of a few frames, of a tile: no part is the whole.
    assert len(heard) >= {"text": 1, "frames": 20, "one tile": 20, "tiles": 80}[name]


@pytest.mark.parametrize("name", ["text", "frames", "tiles"])
def test_a_long_call_stops_at_any_part_and_leaves_the_model_as_it_was(base, name):
    call = long_calls(base)[name]
    before, heard = parts_of(call)
    for part in {0, len(heard) // 2, len(heard) - 1}:
        stopped_at(call, part)
    assert torch.equal(call(), before)
    # Nothing stays attached: the next call reports to its own listener alone.
    assert parts_of(call)[1] == heard
