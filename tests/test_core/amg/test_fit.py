import math

import pytest
import torch
from torch.testing import assert_close

from flexiact_core.amg.fit import AvatarClip, adapter_of, avatar_loss, draw_batch, fit_amg, make_learner
from flexiact_core.amg.loading import check_adapter, load_adapter, save_adapter, with_adapter
from flexiact_core.amg.model import apply_adapter, inject_lora, lora_shapes
from flexiact_core.amg.sampling import make_scheduler
from flexiact_core.errors import FileError, SettingError
from flexiact_core.training import Course, StopTraining, load_state, save_state

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip():
    generator = torch.Generator().manual_seed(4)
    video, avatar = torch.randn(2, 1, 4, 3, 4, 4, generator=generator)
    return AvatarClip(video, avatar, torch.randn(1, 77, 32, generator=generator))


def fit(small, clip, **settings):
    own = {name: settings.pop(name) for name in ("rank", "null_text", "caption_dropout") if name in settings}
    course = Course(**{"steps": 3, "learning_rate": 1e-3, "seed": 0, "device": CPU} | settings)
    return fit_amg(small, lambda generator: clip, course, **own)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_the_loss_is_the_releases(amg_golden):
    io, scheduler = amg_golden.io, make_scheduler()
    base, learned = amg_golden.parts
    unet = inject_lora(base, learned.lora)
    times = io["in.t_train"]
    assert_close(scheduler.add_noise(io["in.x0"], io["in.noise"], times), io["out.loss_xt"], atol=1e-6, rtol=0)
    for row in range(len(times)):
        of_row = [io[key][row : row + 1] for key in ("in.x0", "in.avatar", "in.noise", "in.t_train", "in.y")]
        with torch.no_grad():
            loss = avatar_loss(unet, scheduler, *of_row)
        assert_close(loss, io["out.loss"][row], atol=1e-6, rtol=0)


def test_what_is_learned_is_lora_on_all_attention_and_the_input_layer(small, clip):
    state = fit(small, clip, steps=1)
    expected = lora_shapes(small.unet, 4) | {
        key: tuple(small.unet.state_dict()[key].shape) for key in ("conv_in.weight", "conv_in.bias")
    }
    assert {key: tuple(value.shape) for key, value in state.parameters.items()} == expected


def test_a_new_lora_changes_nothing_before_the_first_step(small, clip):
    learner, _ = make_learner(small, 4, CPU, torch.Generator().manual_seed(0))
    sample, times = torch.cat([clip.video, clip.avatar], 1), torch.tensor([7])
    with torch.no_grad():
        learned, plain = (unet(sample, times, clip.text).sample for unet in (learner, small.unet))
    assert_close(learned, plain, atol=1e-6, rtol=0)


def test_training_leaves_the_model_as_it_is_and_learns(small, clip):
    before = {key: value.clone() for key, value in small.unet.state_dict().items()}
    random_state = torch.get_rng_state()
    state = fit(small, clip, steps=12, learning_rate=1e-2)
    assert same(small.unet.state_dict(), before) and torch.equal(torch.get_rng_state(), random_state)
    assert not any(parameter.requires_grad for parameter in small.unet.parameters())
    adapter = adapter_of(state)

    def loss(unet):
        generator = torch.Generator().manual_seed(9)
        batch = draw_batch([clip] * 8, None, 0.0, generator)
        with torch.no_grad():
            return float(avatar_loss(unet, make_scheduler(), **batch))

    assert loss(apply_adapter(small.unet, adapter)) < 0.97 * loss(small.unet)


def test_a_step_is_adam_without_decay_and_nothing_is_cut(small, clip):
    learner, parameters = make_learner(small, 4, CPU, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    make_learner(small, 4, CPU, generator)  # draws the start, as the training does
    batch = draw_batch([clip], None, 0.0, generator)
    (avatar_loss(learner, make_scheduler(), **batch) * 1).backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters.values()))
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-3, betas=(0.9, 0.999))
    optimizer.step()
    state = fit(small, clip, steps=1)
    for key, value in parameters.items():
        assert_close(state.parameters[key], value.detach(), atol=1e-6, rtol=0)
    moments = math.sqrt(sum(float((m / 0.1).square().sum()) for k, m in state.moments.items() if "sq" not in k))
    assert math.isclose(moments, norm, rel_tol=1e-4)


def test_training_goes_on_bit_for_bit_after_it_was_stopped(small, clip, tmp_path):
    whole = fit(small, clip, steps=4)

    def stop(index, loss, take_state):
        if index == 1:
            raise StopTraining

    half = fit(small, clip, steps=4, on_step=stop)
    assert half.steps_done == 2
    save_state(half, tmp_path / "half.safetensors", {})
    resumed = fit(small, clip, steps=4, resume=load_state(tmp_path / "half.safetensors")[0])
    assert same(resumed.parameters, whole.parameters) and same(resumed.moments, whole.moments)
    assert torch.equal(resumed.losses, whole.losses)


def test_training_goes_on_from_the_lora_that_a_model_has(small, clip):
    first = adapter_of(fit(small, clip))
    again = with_adapter(small, first)
    state = fit(again, clip, steps=1, learning_rate=1e-9)
    for key, value in first.tensors().items():
        assert_close(state.parameters[key], value, atol=1e-7, rtol=0)


def test_checkpointing_gives_the_same_gradients(small, clip):
    plain, kept = fit(small, clip, steps=2), fit(small, clip, steps=2, gradient_checkpointing=True)
    for key, value in plain.parameters.items():
        assert_close(kept.parameters[key], value, atol=1e-6, rtol=0)


def test_two_processes_with_half_a_batch_are_one_with_the_whole(small, clip):
    # The first step's loss of a whole batch is the mean of its halves'.
    whole = fit(small, clip, steps=1, batch_size=2).losses
    halves = [fit(small, clip, steps=1, batch_size=1, shard=(number, 2)).losses for number in range(2)]
    assert_close(whole, sum(halves) / 2, atol=1e-6, rtol=0)


def test_dropped_captions_are_the_text_of_no_words(clip):
    null = torch.zeros(1, 77, 32)

    def texts(share):
        return draw_batch([clip] * 200, null, share, torch.Generator().manual_seed(0))["text"]

    assert torch.equal(texts(0.0), clip.text.expand(200, -1, -1))
    dropped = (texts(0.25) == 0).all(-1).all(-1)
    assert 30 < int(dropped.sum()) < 70


def test_settings_that_cannot_work_are_refused_before_any_work(small, clip):
    with pytest.raises(SettingError, match="learning_rate 0: a number above 0 is needed. The method uses 1e-06"):
        fit(small, clip, learning_rate=0)
    with pytest.raises(SettingError, match="caption_dropout: needs the text of no words"):
        fit(small, clip, caption_dropout=0.1)


def test_a_checkpoint_of_another_rank_is_refused(small, clip):
    state = fit(small, clip, steps=1)
    with pytest.raises(FileError, match="resume: the checkpoint is of another base or size"):
        fit(small, clip, steps=2, rank=2, resume=state)


def test_a_learned_adapter_is_saved_and_fits(small, clip, tmp_path):
    adapter = adapter_of(fit(small, clip), "mine")
    loaded = load_adapter(save_adapter(adapter, tmp_path / "mine.safetensors", {"steps": 3}))
    check_adapter(loaded, small.unet)
    for key, value in adapter.tensors().items():
        assert_close(loaded.tensors()[key], value, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_a_base_in_16_bits_learns_in_32(clip, dtype):
    from flexiact_core.amg.rehearsal import make_small_amg

    state = fit(make_small_amg(dtype), clip, steps=2, learning_rate=1e-6)
    assert {value.dtype for value in state.parameters.values()} == {torch.float32}
    assert torch.isfinite(state.losses).all()
