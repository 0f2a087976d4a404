"""Damaged files of AMG end in a sentence or are read: never in another exception."""

import json

import pytest
import torch
from damage import ends_in_sentences

from flexiact_core.amg.loading import load_adapter, load_amg, load_zero_text, save_adapter
from flexiact_core.amg.model import CONV_IN, Adapter
from flexiact_core.amg.parts import load_parts, load_tokenizer
from flexiact_core.amg.released import read_captions, read_latents
from flexiact_core.errors import FileError


def test_a_damaged_adapter(small, tmp_path):
    state = small.unet.state_dict()
    file = save_adapter(Adapter({}, {key: state[key] for key in CONV_IN}), tmp_path / "a.safetensors")
    assert ends_in_sentences(load_adapter, file, file.read_bytes(), seed="adapter") > 30


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_latent_and_embedding(small, tmp_path, zipped):
    for shape, read in (
        ((1, 1, 4, 4, 4), lambda file: read_latents([file])),
        ((1, 77, 32), lambda file: load_zero_text(file, small.unet)),
    ):
        file = tmp_path / "frame_000001.pth"
        torch.save(torch.zeros(shape), file, _use_new_zipfile_serialization=zipped)
        assert ends_in_sentences(read, file, file.read_bytes(), seed=str(shape), count=150) > 30


def test_damaged_captions(tmp_path):
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"new_captions": ["snow", "a beach"]}))
    assert ends_in_sentences(lambda file: read_captions(file.parent, 0), file, file.read_bytes(), seed="captions") > 30


@pytest.fixture
def parts(small, tmp_path):
    for name in ("text_encoder", "tokenizer", "vae"):
        getattr(small, name).save_pretrained(tmp_path / "sd" / name)
    return tmp_path / "sd"


@pytest.mark.parametrize("name", ["text_encoder/config.json", "tokenizer/tokenizer.json", "vae/config.json"])
def test_a_damaged_folder_of_parts(parts, name):
    file = parts / name
    refused = ends_in_sentences(
        lambda _: load_parts(parts, torch.float32), file, file.read_bytes(), seed=name, count=60
    )
    assert refused > 20


@pytest.mark.parametrize(("part", "field"), [("text_encoder", "num_hidden_layers"), ("vae", "layers_per_block")])
def test_a_config_of_more_layers_than_weights_is_refused_at_once(parts, part, field):
    file = parts / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: 300_000}))
    with pytest.raises(FileError, match=f"sd: {field} in config.json is not as the weights are"):
        load_parts(parts, torch.float32)


def test_a_number_of_a_level_that_is_out_of_place_asks_for_no_table(small, tmp_path):
    state = small.unet.state_dict() | {"down_blocks.2000000000.resnets.0.conv1.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(FileError, match="a.pth: not a whole video UNet"):
        load_amg(tmp_path / "a.pth", torch.float32)


def test_a_unet_of_a_size_that_cannot_be_is_a_sentence(small, tmp_path):
    torch.save(small.unet.state_dict(), tmp_path / "a.pth")
    # Without its config, groups of 32 channels are taken, which the small one has not.
    with pytest.raises(FileError, match="a.pth/unet/config.json: not the settings of such a model"):
        load_amg(tmp_path / "a.pth", torch.float32)


def test_a_tokenizer_without_its_vocabulary_is_refused(tmp_path):
    folder = tmp_path / "clip" / "tokenizer"
    folder.mkdir(parents=True)
    pieces = ["a</w>", "b</w>", "a", "b", "ab</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    specials = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **specials}))
    assert load_tokenizer(folder)("ab b").input_ids == [5, 4, 1, 6]
    (folder / "merges.txt").unlink()
    with pytest.raises(FileError, match="clip/tokenizer/merges.txt: no such file"):
        load_tokenizer(folder)
    (folder / "vocab.json").unlink()
    with pytest.raises(FileError, match="clip/tokenizer: no vocabulary in it"):
        load_tokenizer(folder)


def test_a_tokenizer_of_more_pieces_than_the_text_encoder_knows_is_refused(small, parts):
    more = small.tokenizer
    file = parts / "tokenizer" / "tokenizer.json"
    table = json.loads(file.read_text())
    table["model"]["vocab"] |= {f"piece{number}": len(more) + number for number in range(9)}
    file.write_text(json.dumps(table))
    with pytest.raises(FileError, match="sd/tokenizer: 113 pieces, and the text encoder knows 104"):
        load_parts(parts, torch.float32)
