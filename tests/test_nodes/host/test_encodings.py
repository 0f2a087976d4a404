"""Prompts and pictures as the base reads them, the last few kept."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.testing import assert_close

encodings = pytest.importorskip("flexiact_pack.nodes.host.encodings", reason="needs ComfyUI: run `make test`")

from flexiact_core.cogvideox import model as cogvideox  # noqa: E402
from flexiact_core.video import to_model_pixels  # noqa: E402


@pytest.fixture
def counted(monkeypatch):
    """How often prompts and pictures were encoded."""
    calls = {"encode_prompt": 0, "encode_pixels": 0}

    def counting(name, function):
        def call(*inputs):
            calls[name] += 1
            return function(*inputs)

        return call

    for name in calls:
        monkeypatch.setattr(cogvideox, name, counting(name, getattr(cogvideox, name)))
    return calls


def test_a_prompt_is_what_the_text_encoder_makes_of_it(small_model):
    base, length = small_model.base, small_model.base.transformer.config.max_text_seq_length
    direct = cogvideox.encode_prompt(base.text_encoder, base.tokenizer, "a cat", length, torch.device("cpu"))
    assert_close(encodings.encode_prompt(small_model, "a cat"), direct)


def test_a_picture_is_what_the_vae_makes_of_it(small_model):
    picture = torch.rand(1, 64, 64, 3)
    direct = cogvideox.encode_pixels(small_model.base.vae, to_model_pixels(picture), torch.device("cpu"))
    posterior = encodings.encode_image(small_model, picture)
    assert_close(posterior.mean, direct.mean)
    assert_close(posterior.std, direct.std)


def test_the_last_few_are_kept_for_every_branch_of_the_graph(small_model, counted):
    picture = torch.rand(1, 64, 64, 3)
    for model in (small_model, small_model.with_adapter(object(), 1.0)):
        encodings.encode_prompt(model, "a cat")
        encodings.encode_image(model, picture)
    assert counted == {"encode_prompt": 1, "encode_pixels": 1}
    encodings.encode_prompt(small_model, "a dog")
    encodings.encode_image(small_model, picture * 0.5)
    assert counted == {"encode_prompt": 2, "encode_pixels": 2}


def test_kept_encodings_go_when_the_base_goes():
    encoder = torch.nn.Module()
    encodings._kept.setdefault(encoder, encodings.Recent()).get("key", lambda: torch.ones(1))
    gone = weakref.ref(encoder)
    del encoder
    gc.collect()
    assert gone() is None


def test_recent_forgets_what_was_asked_for_longest_ago():
    recent, made = encodings.Recent(2), []

    def ask(key):
        return recent.get(key, lambda: made.append(key) or key)

    assert [ask(key) for key in "abacba"] == list("abacba")
    assert made == list("abcba")


def test_a_prompt_that_is_cut_is_said(small_model, said):
    encodings.encode_prompt(small_model, "word " * 100)
    assert len(said) == 1 and "the model reads the first 32" in said[0]


def test_equal_tensors_have_one_name_and_others_another():
    first = torch.rand(3, 4)
    assert encodings.tensor_digest(first) == encodings.tensor_digest(first.clone())
    assert encodings.tensor_digest(first) != encodings.tensor_digest(first + 1e-6)
    # Copies in half precision of numbers that it holds are the same numbers.
    assert encodings.tensor_digest(torch.ones(2)) == encodings.tensor_digest(torch.ones(2, dtype=torch.float16))


def test_a_generator_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = torch.rand(3, generator=encodings.generator(5))
    torch.manual_seed(2)
    assert torch.equal(first, torch.rand(3, generator=encodings.generator(5)))
