import json
import random
import sys

import pytest
import sentencepiece
from small_models import write_spiece_model

from flexiact_core.cogvideox.tokenizer import load_tokenizer
from flexiact_core.errors import FileError

PROMPTS = [
    "",
    "a cat dances in the rain",
    "A Cat,  DANCES\tin the\nrain! 0123",
    "caf\u00e9 \u732b \U0001f431 \ufb01ne \uff21\u3000x",
    "</s> <pad> <unk> <extra_id_0>",
    "a" * 3000,
]


@pytest.fixture
def folder(tmp_path):
    """A tokenizer folder as T5 is released: spiece.model, and what other programs read beside it."""
    folder = tmp_path / "my-base" / "tokenizer"
    folder.mkdir(parents=True)
    write_spiece_model(folder / "spiece.model")
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "legacy": True} | names)
    )
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    (folder / "added_tokens.json").write_text(json.dumps({f"<extra_id_{i}>": 32099 - i for i in range(100)}))
    return folder


def random_texts(count):
    letters = random.Random(0)
    alphabet = "abcdefgh  \t\n.,!?AZ09'\"\u00e9\u00df\u732b\U0001f431\ufb01\u0301\u200b\x00"
    return ["".join(letters.choices(alphabet, k=letters.randrange(40))) for _ in range(count)]


def test_numbers_are_those_of_sentencepiece_and_the_end(folder):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    tokenizer = load_tokenizer(folder)
    for text in PROMPTS + random_texts(300):
        assert tokenizer(text).input_ids == pieces.encode(text) + [1], text
    assert (len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id) == (pieces.get_piece_size(), 0, 1)


def test_the_vocabulary_alone_is_enough(folder):
    expected = load_tokenizer(folder)("a cat").input_ids
    for file in folder.iterdir():
        if file.name != "spiece.model":
            file.unlink()
    assert load_tokenizer(folder)("a cat").input_ids == expected


def test_neither_protobuf_nor_tiktoken_nor_transformers_is_asked_for(folder, monkeypatch):
    for name in ("google.protobuf", "tiktoken", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    assert load_tokenizer(folder)("a cat").input_ids[-1] == 1


def test_a_fast_vocabulary_gives_the_numbers_of_transformers():
    from transformers import AutoTokenizer

    from flexiact_core.world.scenes import vocabulary
    from flexiact_core.world.shipped import base_folder

    ours, theirs = (
        load_tokenizer(base_folder() / "tokenizer"),
        AutoTokenizer.from_pretrained(base_folder() / "tokenizer"),
    )
    words = random.Random(0)
    for text in [
        "",
        *(" ".join(words.choices([*vocabulary(), "zebra"], k=words.randrange(1, 30))) for _ in range(200)),
    ]:
        assert ours(text).input_ids == theirs(text, truncation=False, verbose=False).input_ids, text


@pytest.mark.parametrize("kind", ["spiece.model", "tokenizer.json"])
def test_half_a_character_counts_as_one_that_cannot_be_read(folder, kind):
    from flexiact_core.world.shipped import base_folder

    tokenizer = load_tokenizer(folder if kind == "spiece.model" else base_folder() / "tokenizer")
    assert tokenizer("a cat \ud83d dances").input_ids == tokenizer("a cat \ufffd dances").input_ids
    assert tokenizer("a \ud83d\udc31").input_ids == tokenizer("a \U0001f431").input_ids


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 791656\n"
BROKEN = {
    "no vocabulary": (None, r"my-base/tokenizer: no vocabulary in it \(neither spiece.model nor tokenizer.json\)"),
    "empty": (b"", "spiece.model: the file is empty"),
    "a Git LFS pointer": (LFS, "spiece.model: this is a Git LFS pointer.*git lfs pull"),
    "a web page": (b"<!DOCTYPE html><html>404</html>", "spiece.model: this is a web page"),
    "something else": (b"\x00\x01\x02\x03" * 50, "my-base/tokenizer/spiece.model: damaged, or no vocabulary"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_folder_whose_vocabulary_cannot_be_read_is_refused(folder, case):
    content, words = BROKEN[case]
    (folder / "spiece.model").unlink()
    if content is not None:
        (folder / "spiece.model").write_bytes(content)
    with pytest.raises(FileError, match=words):
        load_tokenizer(folder)


def test_a_fast_vocabulary_that_is_damaged_is_refused(folder):
    (folder / "spiece.model").unlink()
    for content in (b"{", b"[]", b"{}", b'{"model": {"type": "Unigram", "vocab": []}}', b"\xff\xfe"):
        (folder / "tokenizer.json").write_bytes(content)
        with pytest.raises(FileError, match="my-base/tokenizer/tokenizer.json: damaged, or no vocabulary"):
            load_tokenizer(folder)


def test_an_unbounded_vocabulary_is_refused_before_it_is_read(folder):
    with (folder / "spiece.model").open("r+b") as file:
        file.truncate(2_000_000_000)
    with pytest.raises(FileError, match="2000 MB are too much for a vocabulary"):
        load_tokenizer(folder)


def test_a_vocabulary_without_an_end_is_refused(folder):
    write_spiece_model(folder / "spiece.model", eos_id=-1)
    with pytest.raises(FileError, match="no end token, so it is not T5's"):
        load_tokenizer(folder)


@pytest.mark.parametrize("package", ["sentencepiece", "tokenizers"])
def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(folder, monkeypatch, package):
    if package == "tokenizers":
        (folder / "spiece.model").rename(folder / "tokenizer.json")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FileError, match=f"my-base/tokenizer: .*pip install {package}$") as error:
        load_tokenizer(folder)
    assert "ownload" not in str(error.value)
