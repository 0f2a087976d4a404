import copy

import pytest
import torch
from trainings import assert_gradients, clip_of, fit, fit_adapter, refadapter_inputs, same_state

from flexiact_core.cogvideox.encodings import Clips, TrainingClip
from flexiact_core.cogvideox.loss import Batch, denoising_loss
from flexiact_core.cogvideox.model import Posterior, for_num_latent_frames
from flexiact_core.cogvideox.sampling import make_scheduler
from flexiact_core.errors import SettingError
from flexiact_core.flexiact import fit as fit_module
from flexiact_core.flexiact.fae import TOKEN_KEY
from flexiact_core.flexiact.fit import (
    CAPTION_DROPOUT,
    IMAGE_DROPOUT,
    TOKENS,
    draw_fae_batch,
    draw_refadapter_batch,
    fit_fae,
    fit_refadapter,
    refadapter_of,
)
from flexiact_core.flexiact.processor import project_motion, with_motion_attention
from flexiact_core.flexiact.refadapter import learned_matrices, with_refadapters
from flexiact_core.training import Course, TrainingState, check_training_settings

CPU = torch.device("cpu")
LOSS_RTOL = 1e-6


@pytest.fixture(scope="module")
def recorded(golden):
    return golden.tensors("training")


@pytest.fixture(scope="module")
def golden_scheduler(golden):
    return make_scheduler(golden.schedule["scheduler_config"], "DPM")


def test_the_first_latent_frame_becomes_the_condition_image_in_input_and_target(recorded):
    batch = refadapter_inputs(recorded)
    assert torch.equal(batch.video_latents[:, :1], recorded["refadapter.image_latent"])
    assert torch.equal(batch.image_latents, recorded["refadapter.image_latent"])
    assert torch.equal(batch.video_latents[:, 1:], recorded["refadapter.video_latents"][:, 1:])


def test_the_seed_fixes_what_is_learned(base, scheduler, clips):
    first, again, other = (fit(base, scheduler, clips, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first.parameters[TOKENS], again.parameters[TOKENS])
    assert torch.equal(first.losses, again.losses)
    assert not torch.equal(first.parameters[TOKENS], other.parameters[TOKENS])


def test_the_global_random_state_neither_matters_nor_changes(base, scheduler, clips):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fit(base, scheduler, clips)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(fit(base, scheduler, clips).parameters[TOKENS], first.parameters[TOKENS])


def test_gradient_checkpointing_learns_the_same_and_stays_off_the_base(base, scheduler, clips):
    plain, saving = (fit(base, scheduler, clips, gradient_checkpointing=on) for on in (False, True))
    torch.testing.assert_close(plain.parameters[TOKENS], saving.parameters[TOKENS], rtol=1e-5, atol=1e-05)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in base.transformer.modules())


def test_as_many_tokens_as_asked_for_else_as_the_text_has(base, scheduler, clips):
    config = base.transformer.config
    assert fit(base, scheduler, clips, steps=1).parameters[TOKENS].shape == (2, 5, 32)
    assert fit(base, scheduler, clips, steps=1, num_tokens=None).parameters[TOKENS].shape == (
        config.num_layers,
        config.max_text_seq_length,
        config.num_attention_heads * config.attention_head_dim,
    )


def held_out_loss(base, scheduler, clips, tokens):
    """The loss on one fixed, large batch of the clip."""
    transformer = with_motion_attention(base.transformer)
    transformer = for_num_latent_frames(transformer, clips.video.mean.shape[1])
    batch = draw_fae_batch(clips, 1000, 48, torch.Generator().manual_seed(99))
    with torch.no_grad():
        motion = project_motion(transformer, [(tokens, 1.0)])
        return denoising_loss(transformer, scheduler, batch, attention_kwargs={"motion": motion}).item()


def test_the_loss_of_a_clip_falls(base, scheduler, clips):
    start, learned = (
        fit(base, scheduler, clips, steps=steps, learning_rate=0.1, batch_size=4, num_tokens=16).parameters[TOKENS]
        for steps in (1, 60)
    )
    before, after = (held_out_loss(base, scheduler, clips, tokens) for tokens in (start, learned))
    assert after < 0.97 * before, (before, after)


def test_every_layers_tokens_learn(base, scheduler, clips):
    first, later = (fit(base, scheduler, clips, steps=steps).parameters[TOKENS] for steps in (1, 2))
    assert ((later - first).abs().amax((1, 2)) > 0).all()


def test_the_base_stays_as_it_is(base, scheduler, clips):
    before = {key: value.clone() for key, value in base.transformer.state_dict().items()}
    processors = list(base.transformer.attn_processors.values())
    fit(base, scheduler, clips, gradient_checkpointing=True)
    fit_adapter(base, scheduler, clips)
    after = base.transformer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(now is then for now, then in zip(base.transformer.attn_processors.values(), processors, strict=True))
    assert all(p.grad is None and not p.requires_grad for p in base.transformer.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps 0: at least 1"),
        ({"batch_size": 0}, "batch_size 0: at least 1"),
        ({"learning_rate": 0.0}, "learning_rate 0.0: a number above 0 is needed. The method uses 0.003"),
        ({"learning_rate": float("nan")}, "learning_rate nan"),
        ({"learning_rate": float("inf")}, "learning_rate inf"),
        ({"learning_rate": -1.0}, "learning_rate -1.0"),
    ],
)
def test_impossible_settings_are_refused_before_any_work(base, scheduler, settings, message):
    with pytest.raises(SettingError, match=message):
        fit(base, scheduler, None, **settings)
    with pytest.raises(SettingError, match=message):
        check_training_settings(**{"steps": 1, "learning_rate": 1.0, "batch_size": 1} | settings)


def test_a_loss_that_is_no_number_ends_with_the_step_and_the_way_out(base, scheduler, clips):
    broken = copy.copy(clips)
    object.__setattr__(broken, "video", Posterior(clips.video.mean * float("nan"), clips.video.std))
    with pytest.raises(SettingError, match="no longer a number at step 1. Use a smaller learning rate than 0.003"):
        fit(base, scheduler, broken)


def big_batch(clips, **settings):
    return draw_fae_batch(clips, 1000, 2000, torch.Generator().manual_seed(3), **settings)


def test_conditions_are_left_out_as_often_as_the_method_says(clips):
    batch = big_batch(clips)
    no_image = (batch.image_latents.flatten(1) == 0).all(1).float().mean()
    no_caption = (batch.prompt_embeds == clips.empty_embeds).flatten(1).all(1).float().mean()
    assert (IMAGE_DROPOUT, CAPTION_DROPOUT) == (0.05, 0.1)
    assert no_image.item() == pytest.approx(IMAGE_DROPOUT, abs=0.02)
    assert no_caption.item() == pytest.approx(CAPTION_DROPOUT, abs=0.02)


def test_batches_draw_every_timestep_clip_and_frame(clips):
    batch = big_batch(clips)
    assert batch.timesteps.min() < 10 and batch.timesteps.max() > 989
    assert set(batch.debias_frames.tolist()) == {0, 1}
    assert big_batch(clips, debiased=False).debias_frames is None
    # Each drawn video lies near one of the two clips, scaled.
    distance = (batch.video_latents[:, None] / 0.7 - clips.video.mean[None]).square().flatten(2).mean(2).sqrt()
    assert torch.allclose(distance.amin(1), torch.tensor(0.1), atol=0.01)
    assert 0.4 < distance.argmin(1).float().mean() < 0.6


def test_a_video_and_its_image_come_from_the_same_clip(clips):
    batch = big_batch(clips)
    kept = (batch.image_latents.flatten(1) != 0).any(1)
    gap = (batch.video_latents[:, :1] - batch.image_latents)[kept].square().flatten(1).mean(1).sqrt()
    assert gap.max() < 0.7 * 0.3


def test_a_learned_refadapter_fits_its_base_and_says_something(base, scheduler, clips):
    adapter = refadapter_of(fit_adapter(base, scheduler, clips, steps=3))
    assert (adapter.num_layers, adapter.rank, adapter.width) == (2, 4, 32)
    twin = with_refadapters(base.transformer, [(adapter, 1.0)], CPU, torch.float32)
    assert len(learned_matrices(twin, "lora_0")) == 16
    assert any(value.abs().max() > 0 for key, value in adapter.tensors.items() if ".up." in key)


def test_refadapter_training_is_fixed_by_its_seed_and_resumes_bit_for_bit(base, scheduler, clips):
    whole, again = (fit_adapter(base, scheduler, clips, steps=4) for _ in range(2))
    assert same_state(whole, again)
    half = fit_adapter(base, scheduler, clips, steps=2)
    assert same_state(fit_adapter(base, scheduler, clips, steps=4, resume=half), whole)


def test_the_seed_of_a_refadapter_training_fixes_what_it_starts_from(base, scheduler, clips):
    def start(seed):
        # A step of hardly any size.
        return fit_adapter(base, scheduler, clips, seed=seed, steps=1, learning_rate=1e-30).parameters

    first, other = start(1), start(2)
    assert all(torch.equal(first[key], start(1)[key]) for key in first)
    assert all(not torch.equal(first[key], other[key]) for key in first if ".down." in key)


def test_refadapter_training_stops_within_a_step(base, scheduler, clips):
    def stop(step, loss, take_state):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit_adapter(base, scheduler, clips, on_step=stop)


def test_refadapter_training_takes_the_learned_positions_of_short_clips(base, scheduler, clips):
    as_prepared = base.transformer.patch_embed
    short = for_num_latent_frames(base.transformer, 3)
    expected = held_loss_of_first_step(short, scheduler, clips)
    assert fit_adapter(base, scheduler, clips, steps=1).losses[0].item() == pytest.approx(expected, rel=1e-6)
    assert base.transformer.patch_embed is as_prepared


def held_loss_of_first_step(transformer, scheduler, clips):
    """What fit_adapter's first step measures: its adapter still changes nothing."""
    generator = torch.Generator().manual_seed(7)
    clip = clip_of(clips, int(torch.randint(2, (), generator=generator)))
    with torch.no_grad():
        return denoising_loss(transformer, scheduler, draw_refadapter_batch([clip], 1000, generator)).item()


def test_a_batch_of_clips_is_as_long_as_its_shortest(clips):
    long, short = clip_of(clips, 0), clip_of(clips, 1)
    cut = TrainingClip(
        Posterior(short.video.mean[:, :1], short.video.std[:, :1]), short.image, short.prompt_embeds, 0.7
    )
    batch = draw_refadapter_batch([long, cut], 1000, torch.Generator())
    assert batch.video_latents.shape[:2] == batch.noise.shape[:2] == (2, 1)


def first_moments(state):
    return {key.removeprefix("exp_avg/"): value for key, value in state.moments.items() if key.startswith("exp_avg/")}


def assert_one_step_took_the_recorded_gradients(state, recorded, prefix):
    """After one step of AdamW its first moments are a tenth of the gradients, which were clipped to a norm of 1."""
    expected = {key[len(prefix) :]: value for key, value in recorded.items() if key.startswith(prefix)}
    norm = torch.stack([gradient.square().sum() for gradient in expected.values()]).sum().sqrt()
    clipped = {key: 0.1 * gradient / max(norm.item(), 1.0) for key, gradient in expected.items()}
    assert_gradients(first_moments(state), {prefix + key: value for key, value in clipped.items()}, prefix)


def starting_from(parameters):
    zeros = {f"{moment}/{key}": torch.zeros_like(value) for key, value in parameters.items()
             for moment in ("exp_avg", "exp_avg_sq")}  # fmt: skip
    return TrainingState(parameters, zeros, torch.Generator().get_state(), torch.zeros(0, dtype=torch.float64))


def test_the_trainer_itself_takes_the_recorded_fae_step(golden, recorded, golden_scheduler, monkeypatch):
    values = {name: recorded[f"fae.{name}"] for name in ("video_latents", "noise", "timesteps", "prompt_embeds")}
    frames = recorded["fae.rand_idx"].expand(len(values["timesteps"]))
    batch = Batch(image_latents=recorded["fae.image_latent"], debias_frames=frames, **values)
    monkeypatch.setattr(fit_module, "draw_fae_batch", lambda *_: batch)
    latents = Posterior(batch.video_latents, torch.zeros_like(batch.video_latents))
    clips = Clips(latents, latents, batch.prompt_embeds, batch.prompt_embeds, 1.0)
    start = starting_from({TOKENS: golden.fae.tokens.float()})
    course = Course(1, 1e-3, 0, CPU, batch_size=len(batch.timesteps), resume=start)
    num_tokens = golden.fae.tokens.shape[1]
    state = fit_fae(golden.transformer, golden_scheduler, clips, course, num_tokens=num_tokens)
    assert state.losses[0].item() == pytest.approx(recorded["fae.loss"].item(), rel=LOSS_RTOL)
    by_layer = {
        f"exp_avg/{TOKEN_KEY.format(layer)}": moment[None] for layer, moment in enumerate(first_moments(state)[TOKENS])
    }
    state = TrainingState(state.parameters, by_layer, state.generator, state.losses)
    assert_one_step_took_the_recorded_gradients(state, recorded, "fae.grad.")


def test_the_trainer_itself_takes_the_recorded_refadapter_step(golden, recorded, golden_scheduler, monkeypatch):
    names = ("video_latents", "noise", "timesteps", "prompt_embeds")
    values = {name: recorded[f"refadapter.{name}"].clone() for name in names}
    batch = Batch(image_latents=recorded["refadapter.image_latent"], **values)
    batch.video_latents[:, :1] = batch.image_latents
    monkeypatch.setattr(fit_module, "draw_refadapter_batch", lambda *_: batch)
    adapter = golden.refadapter
    start = starting_from({key: value.float() for key, value in adapter.tensors.items()})
    course = Course(1, 1e-3, 0, CPU, batch_size=len(batch.timesteps), resume=start)
    state = fit_refadapter(
        golden.transformer, golden_scheduler, lambda generator: None, course, rank=adapter.rank
    )  # fmt: skip
    assert state.losses[0].item() == pytest.approx(recorded["refadapter.loss"].item(), rel=LOSS_RTOL)
    assert_one_step_took_the_recorded_gradients(state, recorded, "refadapter.grad.")
