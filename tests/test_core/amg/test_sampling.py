import pytest
import torch

from flexiact_core.amg.sampling import make_scheduler, sample_avatar_video, take_steps
from flexiact_core.errors import SettingError, ShapeError


@pytest.fixture(scope="module")
def inputs():
    """Noise and avatar, text and null text."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(2, 1, 4, 3, 4, 4, generator=generator)
    texts = torch.randn(2, 1, 77, 32, generator=generator)
    return clips[0], clips[1], texts[0], texts[1]


class Counted:
    """A UNet that notes each call's batch and its avatar channels."""

    def __init__(self, unet):
        self.unet, self.calls = unet, []

    def __call__(self, sample, timestep, **inputs):
        self.calls.append((sample[:, 4:].clone(), timestep.tolist()))
        return self.unet(sample, timestep, **inputs)


def run(unet, inputs, **settings):
    return sample_avatar_video(unet, *inputs, **{"steps": 4} | settings)


def test_both_halves_of_every_step_get_the_clean_avatar(small, inputs):
    for batched, calls in ((True, 4), (False, 8)):
        unet = Counted(small.unet)
        run(unet, inputs, batched=batched)
        assert len(unet.calls) == calls
        for avatar, times in unet.calls:
            assert all(torch.equal(half[None], inputs[1]) for half in avatar) and len(set(times)) == 1


def test_without_guidance_one_forward_a_step_and_no_null_text(small, inputs):
    unet = Counted(small.unet)
    found = run(unet, inputs, cfg=1.0)
    assert [len(avatar) for avatar, _ in unet.calls] == [1] * 4
    other = (*inputs[:3], inputs[3] * 7)
    assert torch.equal(run(small.unet, other, cfg=1.0), found)
    assert not torch.equal(run(small.unet, inputs, cfg=2.0), found)


@pytest.mark.parametrize(("steps", "first", "last"), [(20, 951, 1), (1, 1, 1), (30, 958, 1), (1000, 999, 1)])
def test_steps_end_at_timestep_1_and_never_pass_the_last(steps, first, last):
    timesteps = take_steps(make_scheduler(), steps)
    assert (len(timesteps), timesteps[0], timesteps[-1]) == (steps, first, last)


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_steps_are_refused(small, inputs, steps):
    with pytest.raises(SettingError, match=f"steps {steps}: between 1 and 1000"):
        run(small.unet, inputs, steps=steps)


def test_an_avatar_of_another_length_is_refused(small, inputs):
    with pytest.raises(ShapeError, match="avatar: latents"):
        run(small.unet, (inputs[0], inputs[1][:, :, :2], *inputs[2:]))


def test_one_frame_is_enough(small, inputs):
    assert torch.isfinite(run(small.unet, (inputs[0][:, :, :1], inputs[1][:, :, :1], *inputs[2:]))).all()


@pytest.mark.parametrize("where", ["between", "on_step"])
def test_cancel_at_any_point_leaves_the_next_run_as_it_was(small, inputs, where):
    expected = run(small.unet, inputs, batched=False)

    def cancel(*_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(small.unet, inputs, batched=False, **{where: cancel})
    assert torch.equal(run(small.unet, inputs, batched=False), expected)


def test_the_last_preview_is_near_what_comes_out(small, inputs):
    seen = []
    latents = run(small.unet, inputs, steps=20, on_step=lambda index, clean: seen.append(clean))
    assert len(seen) == 20
    # The last step goes to timestep 0, whose noise is a share of 0.03.
    assert (latents - seen[-1]).abs().max() < 0.1 * latents.abs().max()
