from dataclasses import replace

import pytest
import torch
from small_models import make_fae, make_refadapter

from flexiact_core.cogvideox.model import Posterior
from flexiact_core.cogvideox.sampling import Run
from flexiact_core.errors import FileError, SettingError
from flexiact_core.flexiact.bias import PAPER_BIAS, MotionBias
from flexiact_core.flexiact.fae import load_fae
from flexiact_core.flexiact.refadapter import load_refadapter
from flexiact_core.flexiact.transfer import transfer_action


@pytest.fixture(scope="module")
def kick(tmp_path_factory):
    return load_fae(make_fae(tmp_path_factory.mktemp("fae") / "kick.safetensors"))


@pytest.fixture(scope="module")
def wave(tmp_path_factory):
    return load_fae(make_fae(tmp_path_factory.mktemp("fae") / "wave.safetensors", seed=5, tokens=3))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return load_refadapter(make_refadapter(tmp_path_factory.mktemp("ref") / "ref.safetensors"))


@pytest.fixture(scope="module")
def inputs(base):
    """The picture's posterior, the prompt and the negative prompt."""
    config = base.transformer.config
    generator = torch.Generator().manual_seed(5)
    mean = torch.randn(1, 1, 16, config.sample_height, config.sample_width, generator=generator)
    text = torch.randn(2, 1, config.max_text_seq_length, config.text_embed_dim, generator=generator)
    return Posterior(mean, torch.full_like(mean, 0.2)), text[0], text[1]


def transfer(base, inputs, faes=(), adapters=(), bias=PAPER_BIAS, **settings):
    run = Run(**{"num_frames": 17, "device": torch.device("cpu"), "steps": 4, "seed": 42} | settings)
    return transfer_action(base, *inputs, run, faes=faes, adapters=adapters, bias=bias)


@pytest.mark.parametrize("scheduler", ["DPM", "DDIM"])
def test_one_seed_fixes_everything(base, inputs, kick, adapter, scheduler):
    def run(seed):
        return transfer(base, inputs, faes=[(kick, 1.0)], adapters=[(adapter, 0.7)], scheduler=scheduler, seed=seed)

    torch.manual_seed(1)
    first, state = run(42), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "the global random state was used"
    torch.manual_seed(2)
    assert torch.equal(run(42), first)
    assert not torch.equal(run(43), first)


@pytest.mark.parametrize("num_frames", [1, 9, 17])
def test_the_latents_are_those_of_the_frames_asked_for(base, inputs, kick, num_frames):
    latents = transfer(base, inputs, faes=[(kick, 1.0)], num_frames=num_frames)
    assert latents.shape[1] == (num_frames - 1) // 4 + 1
    assert torch.isfinite(latents).all()


def test_strength_0_is_plain_image_to_video_bit_for_bit(base, inputs, kick):
    assert torch.equal(transfer(base, inputs, faes=[(kick, 0.0)]), transfer(base, inputs))


def test_an_action_changes_the_video_and_a_second_one_changes_it_again(base, inputs, kick, wave):
    plain, one = transfer(base, inputs), transfer(base, inputs, faes=[(kick, 1.0)])
    both = transfer(base, inputs, faes=[(kick, 1.0), (wave, 0.5)])
    silent = transfer(base, inputs, faes=[(kick, 1.0), (wave, 0.0)])
    assert not torch.equal(one, plain) and not torch.equal(both, one)
    assert torch.equal(silent, one)


def test_the_bias_speaks_only_while_it_is_above_0(base, inputs, kick):
    # Four steps: 999, 749, 499, 249.
    def run(bias):
        return transfer(base, inputs, faes=[(kick, 1.0)], bias=bias)

    assert not torch.equal(run(MotionBias()), run(MotionBias(0.0)))
    assert torch.equal(run(MotionBias(1.0, 990, 980)), run(MotionBias(1.0, 760, 750)))
    assert not torch.equal(run(MotionBias(1.0, 990, 980)), run(MotionBias(1.0, 740, 730)))


def test_an_adapter_at_weight_0_changes_nothing(base, inputs, adapter):
    plain = transfer(base, inputs)
    assert torch.equal(transfer(base, inputs, adapters=[(adapter, 0.0)]), plain)
    assert not torch.equal(transfer(base, inputs, adapters=[(adapter, 0.7)]), plain)


def test_the_base_stays_as_it_is(base, inputs, kick, adapter):
    before, keys = transfer(base, inputs), list(base.transformer.state_dict())
    transfer(base, inputs, faes=[(kick, 1.0)], adapters=[(adapter, 0.7)], num_frames=9)
    assert list(base.transformer.state_dict()) == keys
    assert torch.equal(transfer(base, inputs), before)


@pytest.mark.parametrize("at", [0, 3])
def test_cancel_at_any_step_leaves_the_next_run_as_it_was(base, inputs, kick, adapter, at):
    settings = {"faes": [(kick, 2.0)], "adapters": [(adapter, 0.7)]}
    expected = transfer(base, inputs, **settings)

    def cancel(step, clean):
        if step == at:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        transfer(base, inputs, on_step=cancel, **settings)
    assert torch.equal(transfer(base, inputs, **settings), expected)


@pytest.mark.parametrize(("layers", "dim"), [(3, 32), (2, 64)])
def test_files_of_another_base_are_refused_before_any_work(tmp_path, base, inputs, layers, dim):
    broken = replace(base, transformer=base.transformer, scheduler_config=None)
    fae = load_fae(make_fae(tmp_path / "jump.pt", layers=layers, dim=dim))
    adapter = load_refadapter(make_refadapter(tmp_path / "ref.pt", layers=layers, dim=dim))
    with pytest.raises(FileError, match="FAE 'jump': made for .*the loaded base has 2 layers of width 32"):
        transfer(broken, inputs, faes=[(fae, 1.0)])
    with pytest.raises(FileError, match="RefAdapter 'ref': made for .*the loaded base has 2 layers of width 32"):
        transfer(broken, inputs, adapters=[(adapter, 0.7)])


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_steps_are_refused(base, inputs, steps):
    with pytest.raises(SettingError, match=f"steps {steps}"):
        transfer(base, inputs, steps=steps)


def test_pictures_side_by_side_become_the_videos_they_become_alone(base, inputs, kick, adapter):
    picture, prompt, negative = inputs
    other = Posterior(picture.mean.flip(3), picture.std), prompt.flip(1), negative
    both = Posterior(*(torch.cat(pair) for pair in ((picture.mean, other[0].mean), (picture.std, picture.std))))
    words = [torch.cat(pair) for pair in zip(inputs[1:], other[1:], strict=True)]
    settings = {"faes": [(kick, 1.0)], "adapters": [(adapter, 0.7)]}
    first, second = transfer(base, (both, *words), seed=(42, 7), **settings).split(1)
    torch.testing.assert_close(first, transfer(base, inputs, **settings), rtol=0, atol=1e-4)
    torch.testing.assert_close(second, transfer(base, other, seed=7, **settings), rtol=0, atol=1e-4)
