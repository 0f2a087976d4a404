import copy
from fractions import Fraction

import pytest
import torch

from flexiact_core.cogvideox.sampling import SAMPLERS, Run, make_scheduler, sample, take_steps
from flexiact_core.errors import SettingError
from flexiact_core.flexiact.bias import MotionBias
from flexiact_core.flexiact.processor import motion_kwargs, project_motion, with_motion_attention
from flexiact_core.modules import share_weights

CPU = torch.device("cpu")
GUIDANCE = 6.0
RELEASED_WEIGHT = 0.7


@pytest.fixture(scope="module")
def recorded(golden):
    return golden.tensors("sampling")


@pytest.fixture(scope="module")
def adapted(golden):
    return with_motion_attention(golden.adapted(RELEASED_WEIGHT))


@pytest.fixture(scope="module")
def motion(golden, adapted):
    return project_motion(adapted, [(golden.fae.tokens, 1.0)])


class Trace:
    """What a run did: latents after each step, the timesteps, and the transformer's own output at each step."""

    def __init__(self):
        self.latents, self.timesteps, self.outputs, self.batches = [], [], [], []

    def of_scheduler(self, monkeypatch):
        from diffusers import CogVideoXDPMScheduler

        original = CogVideoXDPMScheduler.step

        def step(*args, **kwargs):
            result = original(*args, **kwargs)
            self.latents.append(result[0])
            return result

        monkeypatch.setattr(CogVideoXDPMScheduler, "step", step)

    def of_transformer(self, transformer):
        def seen(module, args, kwargs, output):
            self.timesteps.append(int(kwargs["timestep"][0]))
            self.batches.append(len(kwargs["hidden_states"]))
            self.outputs.append(output[0])

        twin = share_weights(transformer)
        twin.register_forward_hook(seen, with_kwargs=True)
        return twin


def play_back(monkeypatch, noise, trace):
    """The DPM scheduler draws the recorded noise of the step it is in, for both of its draws."""
    from diffusers.schedulers import scheduling_dpm_cogvideox

    def draw(shape, **_):
        given = noise[len(trace.latents)]
        assert shape[1:] == given.shape
        return given[None]

    monkeypatch.setattr(scheduling_dpm_cogvideox, "randn_tensor", draw)


def run_recorded(monkeypatch, golden, recorded, transformer, noise, attention_kwargs):
    trace = Trace()
    play_back(monkeypatch, noise, trace)
    trace.of_scheduler(monkeypatch)
    negative, positive = recorded["prompt_embeds"].chunk(2)
    final = sample(
        trace.of_transformer(transformer),
        golden.schedule["scheduler_config"],
        recorded["latents_init"],
        recorded["image_latents"],
        positive,
        negative,
        Run(17, CPU, len(noise), GUIDANCE),
        attention_kwargs=attention_kwargs,
    )
    assert torch.equal(final, trace.latents[-1])
    return trace


def test_ten_steps_are_the_recorded_ones_after_each_step(monkeypatch, golden, recorded, adapted, motion):
    bias = MotionBias(1.0, 800, 700, "release")
    trace = run_recorded(monkeypatch, golden, recorded, adapted, recorded["noise_used"], motion_kwargs(motion, bias))
    assert trace.timesteps == recorded["timesteps"].tolist()
    applied = torch.tensor([bias.at(timestep) for timestep in trace.timesteps])
    torch.testing.assert_close(applied, recorded["reweight_value"].nan_to_num(0.0), rtol=1e-5, atol=1e-06)
    for step, (found, expected) in enumerate(zip(trace.latents, recorded["latents_after_step"], strict=True)):
        atol = 2e-5 if step < 3 else 1e-4
        torch.testing.assert_close(
            found[0], expected, rtol=0, atol=atol, msg=lambda text, step=step: f"step {step}: {text}"
        )
    for step, expected in zip(recorded["model_output_steps"].tolist(), recorded["model_output"], strict=True):
        # The input of a step already differs as much as the latents may.
        torch.testing.assert_close(
            trace.outputs[step], expected, rtol=0, atol=0.0001, msg=lambda text, step=step: f"step {step}: {text}"
        )


def test_twenty_steps_with_another_weighting_end_where_recorded(monkeypatch, golden, recorded, adapted, motion):
    bias = MotionBias(0.5, 900, 700, "release")
    noise = recorded["extra20.noise_used"]
    trace = run_recorded(monkeypatch, golden, recorded, adapted, noise, motion_kwargs(motion, bias))
    assert trace.timesteps == recorded["extra20.timesteps"].tolist()
    applied = torch.tensor([bias.at(timestep) for timestep in trace.timesteps])
    torch.testing.assert_close(applied, recorded["extra20.reweight_value"].nan_to_num(0.0), rtol=1e-5, atol=1e-06)
    torch.testing.assert_close(trace.latents[-1], recorded["extra20.latents_final"], rtol=0, atol=0.0001)


def test_the_released_call_is_a_run_without_bias(monkeypatch, golden, recorded, adapted, motion):
    noise, expected = recorded["noise_used"], recorded["released_call.latents_final"]
    trace = run_recorded(monkeypatch, golden, recorded, adapted, noise, motion_kwargs(motion, MotionBias(0.0)))
    torch.testing.assert_close(trace.latents[-1], expected, rtol=0, atol=0.0001)
    assert (trace.latents[-1] - recorded["latents_after_step"][-1]).abs().max() > 1e-3


def test_a_wrong_weighting_is_far_above_the_tolerance(monkeypatch, golden, recorded, adapted, motion):
    noise = recorded["extra20.noise_used"]
    paper = MotionBias(0.5, 900, 700, "paper")
    trace = run_recorded(monkeypatch, golden, recorded, adapted, noise, motion_kwargs(motion, paper))
    assert (trace.latents[-1] - recorded["extra20.latents_final"]).abs().max() > 1e-3


@pytest.fixture(scope="module")
def arguments(base):
    """Positional inputs of sample() for the small base: scheduler, noise, image latents, prompt, negative prompt."""
    config = base.transformer.config
    generator = torch.Generator().manual_seed(5)
    shape = (1, 5, 16, config.sample_height, config.sample_width)
    text = (1, config.max_text_seq_length, config.text_embed_dim)
    image_latents = torch.zeros(shape)
    image_latents[:, :1] = torch.randn(1, 1, *shape[2:], generator=generator)
    noise, prompt, negative = (torch.randn(size, generator=generator) for size in (shape, text, text))
    return noise, image_latents, prompt, negative


def run(base, arguments, name="DPM", transformer=None, attention_kwargs=None, **settings):
    settings = {"steps": 4, "seed": 42, "scheduler": name} | settings
    return sample(
        transformer or base.transformer, base.scheduler_config, *arguments, Run(17, CPU, **settings),
        attention_kwargs=attention_kwargs,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["DPM", "DDIM"])
def test_the_same_seed_twice_is_bit_identical(base, arguments, name):
    assert torch.equal(run(base, arguments, name), run(base, arguments, name))


def test_the_seed_fixes_the_noise_of_the_steps(base, arguments):
    assert not torch.equal(run(base, arguments), run(base, arguments, seed=43))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_video_in_a_batch_is_the_one_made_alone(base, arguments, name):
    noise, image_latents, prompt, negative = arguments
    other = noise.flip(2), image_latents * 0.5, prompt.flip(1), negative
    both = [torch.cat(pair) for pair in zip(arguments, other, strict=True)]
    first, second = run(base, both, name, seed=(42, 7)).split(1)
    torch.testing.assert_close(first, run(base, arguments, name), rtol=0, atol=1e-4)
    torch.testing.assert_close(second, run(base, other, name, seed=7), rtol=0, atol=1e-4)


def test_as_many_seeds_as_videos_are_needed(base, arguments):
    with pytest.raises(SettingError, match="2 seeds given for 1 videos"):
        run(base, arguments, seed=(1, 2))


def test_the_global_random_state_neither_matters_nor_changes(base, arguments):
    torch.manual_seed(1)
    first, state = run(base, arguments), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(run(base, arguments), first)


@pytest.mark.parametrize("cfg", [1.0, 6.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ["DPM", "DDIM"])
def test_any_number_of_steps_gives_finite_latents(base, arguments, name, steps, cfg):
    seen = []
    final = run(base, arguments, name, steps=steps, cfg=cfg, on_step=lambda index, clean: seen.append((index, clean)))
    assert final.shape == arguments[0].shape and final.dtype == torch.float32
    assert torch.isfinite(final).all() and final.abs().max() < 100
    assert [index for index, _ in seen] == list(range(steps))
    assert all(torch.isfinite(clean).all() and clean.shape == final.shape for _, clean in seen)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused_before_any_work(base, arguments, steps):
    trace = Trace()
    with pytest.raises(SettingError, match=f"steps {steps}: between 1 and 1000 are possible"):
        run(base, arguments, transformer=trace.of_transformer(base.transformer), steps=steps)
    assert not trace.batches


def test_at_cfg_1_the_negative_prompt_is_not_computed(base, arguments):
    trace = Trace()
    noise, image_latents, prompt, negative = arguments
    first = run(base, arguments, transformer=trace.of_transformer(base.transformer), cfg=1.0)
    assert trace.batches == [1] * 4
    assert torch.equal(first, run(base, (noise, image_latents, prompt, negative * 3), cfg=1.0))
    guided = Trace()
    run(base, arguments, transformer=guided.of_transformer(base.transformer))
    assert guided.batches == [2] * 4


def test_guidance_leads_away_from_the_negative_prompt(base, arguments):
    noise, image_latents, prompt, negative = arguments
    assert not torch.equal(run(base, arguments), run(base, (noise, image_latents, prompt, negative * 3)))
    # With the same prompt on both sides there is nothing to lead away from.
    same = run(base, (noise, image_latents, prompt, prompt))
    torch.testing.assert_close(same, run(base, (noise, image_latents, prompt, prompt), cfg=1.0), rtol=1e-5, atol=0.001)


def test_the_last_steps_clean_latents_are_the_result(base, arguments):
    seen = []
    final = run(base, arguments, on_step=lambda index, clean: seen.append(clean))
    assert torch.equal(seen[-1], final)


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("at", [0, 2, 3])
def test_cancel_stops_within_its_step_and_the_next_run_is_unaffected(base, arguments, at):
    expected = run(base, arguments)
    trace = Trace()

    def cancel(index, clean):
        if index == at:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(base, arguments, transformer=trace.of_transformer(base.transformer), on_step=cancel)
    assert len(trace.batches) == at + 1
    assert torch.equal(run(base, arguments), expected)


def test_inputs_stay_as_they_were(base, arguments):
    before = [tensor.clone() for tensor in arguments]
    run(base, arguments)
    assert all(torch.equal(now, then) for now, then in zip(arguments, before, strict=True))


def test_the_result_keeps_no_gradient(base, arguments):
    assert not run(base, arguments, transformer=copy.deepcopy(base.transformer).requires_grad_()).requires_grad


def test_attention_arguments_are_asked_for_at_every_timestep(base, arguments):
    asked = []
    run(base, arguments, steps=5, attention_kwargs=lambda timestep: asked.append(timestep) or {})
    assert asked == [999, 799, 599, 399, 199]


@pytest.mark.parametrize("num_latent_frames", [1, 3])
def test_fewer_frames_than_the_base_was_trained_on_work(base, arguments, num_latent_frames):
    noise, image_latents, prompt, negative = arguments
    short = noise[:, :num_latent_frames], image_latents[:, :num_latent_frames], prompt, negative
    assert run(base, short).shape == short[0].shape


def test_an_unknown_scheduler_is_refused_with_the_choices(base):
    with pytest.raises(SettingError, match="scheduler 'Euler': choose one of DPM, DDIM"):
        make_scheduler(base.scheduler_config, "Euler")


@pytest.mark.parametrize("name", ["DPM", "DDIM"])
def test_steps_are_spaced_from_pure_noise_whatever_the_config_says(base, name):
    scheduler = make_scheduler(dict(base.scheduler_config) | {"timestep_spacing": "leading"}, name)
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == list(range(999, 0, -100))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_number_of_steps_has_so_many_timesteps_from_999_down(base, name):
    """Spaced by floating point, diffusers gives one too many for 61 steps and others: -1, which is pure noise again."""
    for steps in range(1, 1001):
        timesteps = take_steps(make_scheduler(base.scheduler_config, name), steps)
        # Of exact fractions; halves go to the even one, as numpy rounds.
        exact = [round(Fraction(1000 * (steps - index), steps)) - 1 for index in range(steps)]
        assert len(timesteps) == steps and timesteps[0] == 999
        assert max(abs(found - expected) for found, expected in zip(timesteps, exact, strict=True)) <= 1
        assert min(timesteps) >= 0
