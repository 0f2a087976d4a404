"""What the small AMG is trained on, and that what is written is what AMG's own loader reads."""

import math

import pytest
import torch

from flexiact_core.amg.sampling import NUM_TIMESTEPS
from flexiact_core.world import shipped
from flexiact_core.world.making import amg_training
from flexiact_core.world.making.amg_models import (
    make_amg_text_encoder,
    make_amg_tokenizer,
    make_amg_unet,
    make_amg_vae,
    save_amg,
)
from flexiact_core.world.making.amg_training import AMGTask, AMGVAETask, encode_takes, measure_amg_vae
from flexiact_core.world.take_cases import load_small_amg
from flexiact_core.world.takes import sample_take, take_caption, take_vocabulary


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("takes")
    encode_takes(make_amg_vae().eval(), folder, num_clips=3, device="cpu", workers=1, part_size=2)
    return folder


def open_task(data, batch_size=4):
    task = AMGTask(data, 1.0, batch_size)
    task.prepare("cpu")
    return task, task.make_module()


def test_every_word_of_a_caption_has_a_token_and_other_words_are_unknown():
    tokenizer = make_amg_tokenizer()
    numbers = tokenizer(" ".join(take_vocabulary()), add_special_tokens=False).input_ids
    assert len(set(numbers)) == len(take_vocabulary()) and tokenizer.unk_token_id not in numbers
    assert tokenizer("A PERSON", add_special_tokens=False).input_ids == numbers[:2]
    assert tokenizer("elephant", add_special_tokens=False).input_ids == [tokenizer.unk_token_id]


def test_takes_are_encoded_with_their_avatars_and_captions(data):
    parts = [torch.load(path, weights_only=True) for path in sorted(data.glob("part_*.pt"))]
    assert [len(part["said"]) for part in parts] == [2, 1]
    assert parts[0]["video"].shape == parts[0]["avatar"].shape == (2, 8, 8, 8, 8)
    said = make_amg_tokenizer().decode(parts[0]["said"][0], skip_special_tokens=True)
    assert said == take_caption(sample_take(0))


def test_a_step_reaches_every_weight_that_a_frame_and_a_word_pass(data):
    task, module = open_task(data)
    task.loss(module, torch.Generator().manual_seed(0), 0.0).backward()
    without = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    assert not without
    assert module["unet"].conv_in.weight.grad[:, 4:].any()
    assert module["text_encoder"].get_input_embeddings().weight.grad.any()


def test_the_loss_is_that_of_the_noise_and_counts_more_where_there_is_most_of_it(data, monkeypatch):
    task, module = open_task(data)
    monkeypatch.setattr(amg_training, "NO_CAPTION", 0.0)
    table = task.scheduler.alphas_cumprod
    module["unet"].forward = lambda sample, *_, **__: type("Out", (), {"sample": torch.zeros_like(sample[:, :4])})
    for moment in (0, NUM_TIMESTEPS - 1):
        monkeypatch.setattr(amg_training.torch, "randint", _fixed(moment))
        loss = float(task.loss(module, torch.Generator().manual_seed(0), 0.0))
        # A prediction of nothing misses noise of variance 1 by 1.
        assert loss == pytest.approx(min(1 / float(table[moment]), amg_training.MOST_WEIGHT), rel=0.06)


def _fixed(moment):
    drawn = torch.randint
    return lambda high, *rest, **named: drawn(high, *rest, **named) * 0 + (moment if high == NUM_TIMESTEPS else 0)


def test_other_latents_of_the_avatar_are_other_input(data):
    task, module = open_task(data)
    losses = []
    for shift in (0.0, 1.0):
        task.data["avatar"] = task.data["avatar"] + shift
        with torch.no_grad():
            losses.append(float(task.loss(module, torch.Generator().manual_seed(0), 0.0)))
    assert losses[0] != losses[1]


def test_the_vae_learns_from_both_kinds_of_frames_and_people_count_more():
    import numpy as np

    task = AMGVAETask()
    task.prepare("cpu")
    pixels, weight = task._batch(np.random.default_rng(0))
    assert pixels.shape == (16, 3, 64, 64) and -1 <= pixels.min() and pixels.max() <= 1
    gray = (pixels[:, 0] == pixels[:, 2]).flatten(1).all(1)
    assert 0 < gray.sum() < 16
    assert float(weight.mean()) == pytest.approx(1) and float(weight.max() / weight.min()) == pytest.approx(5)
    loss = task.loss(task.make_module(), torch.Generator().manual_seed(0), 0.0)
    loss.backward()
    assert math.isfinite(loss.item())


def test_a_vaes_numbers_say_the_scale_that_makes_its_latents_unit():
    torch.manual_seed(0)
    vae = make_amg_vae().eval()
    first = measure_amg_vae(vae, num_takes=2)
    vae.register_to_config(scaling_factor=3.0)
    assert measure_amg_vae(vae, num_takes=2)["scaling_factor"] == pytest.approx(first["scaling_factor"], rel=1e-3)
    assert {"psnr_db", "person_psnr_db", "avatar_psnr_db"} < set(first)


def test_what_is_written_is_loaded_by_amgs_own_loader(tmp_path):
    torch.manual_seed(0)
    unet, encoder, vae = make_amg_unet(), make_amg_text_encoder(), make_amg_vae()
    save_amg(shipped.amg_folder(tmp_path), vae=vae, unet=unet, text_encoder=encoder)
    amg = load_small_amg(tmp_path)
    assert amg.reads_avatar and amg.unet.config.in_channels == 8
    for made, read in ((unet, amg.unet), (encoder, amg.text_encoder), (vae, amg.vae)):
        for name, value in read.state_dict().items():
            assert torch.equal(value, made.state_dict()[name].half().float()), name
    assert amg.unet.config.norm_num_groups == unet.config.norm_num_groups
    assert amg.tokenizer("a person").input_ids == make_amg_tokenizer()("a person").input_ids
