import pytest
import torch
from torch.testing import assert_close

from flexiact_core.amg.sampling import predict_noise
from flexiact_core.amg.text import count_tokens, encode_prompt, tokenize
from flexiact_core.errors import SettingError

CPU = torch.device("cpu")
LONG = "abc " * 48  # 192 tokens, one for each letter


def test_a_short_prompt_is_begun_ended_and_padded_with_0(small):
    tokenizer = small.tokenizer
    (ids,) = tokenize(tokenizer, "hi").tolist()
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert ids == [begin, *tokenizer.convert_tokens_to_ids(["h", "i"]), end, *[0] * 73]
    assert tokenize(tokenizer, "").tolist() == [[begin, end, *[0] * 75]]


def test_cut_keeps_the_first_75_tokens_and_the_end(small):
    ids = tokenize(small.tokenizer, LONG)
    assert count_tokens(small.tokenizer, LONG) == 192
    assert ids.shape == (1, 77) and ids[0, -1] == small.tokenizer.eos_token_id
    assert torch.equal(ids, tokenize(small.tokenizer, LONG[:75]))


def test_chunks_keep_every_token_each_piece_with_begin_and_end(small):
    ids = tokenize(small.tokenizer, LONG, long="chunks")
    assert ids.shape == (3, 77)
    kept = [int(i) for row in ids for i in row[1:] if i not in (0, small.tokenizer.eos_token_id)]
    assert kept == small.tokenizer(LONG, add_special_tokens=False).input_ids
    assert encode_prompt(small.text_encoder, small.tokenizer, LONG, CPU, "chunks").shape == (1, 231, 32)
    with pytest.raises(SettingError, match="long_prompt 'all': choose cut or chunks"):
        tokenize(small.tokenizer, LONG, long="all")


def test_texts_of_two_lengths_guide_in_one_batch_as_they_do_apart(small):
    generator = torch.Generator().manual_seed(3)
    noisy, avatar = torch.randn(2, 1, 4, 3, 4, 4, generator=generator)
    text, null = torch.randn(1, 231, 32, generator=generator), torch.randn(1, 77, 32, generator=generator)
    with torch.no_grad():
        together, apart = (
            predict_noise(small.unet, noisy, avatar, 501, text, null, cfg=3.0, batched=batched)
            for batched in (True, False)
        )
    assert_close(together, apart, atol=2e-5, rtol=0)
