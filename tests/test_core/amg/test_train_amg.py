import pytest
import torch
from launches import assert_same_first_moments, checkpoint_of, launch
from safetensors.torch import load_file

from flexiact_core.amg.loading import load_adapter, load_amg
from flexiact_core.amg.train_amg import parse_arguments, train
from flexiact_core.errors import FileError
from flexiact_core.video_files import write_preview


@pytest.fixture(scope="module")
def model(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "small"
    small.unet.save_pretrained(folder / "unet")
    for name in ("text_encoder", "tokenizer", "vae"):
        getattr(small, name).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    for name in ("images_feature", "gh_images_feature", "captions_y"):
        (folder / name).mkdir()
        for number in range(8):
            shape = (1, 77, 32) if name == "captions_y" else (1, 1, 4, 4, 4)
            torch.save(torch.randn(shape, generator=generator), folder / name / f"frame_{number:06d}.pth")
    return folder


pytestmark = pytest.mark.usefixtures("alone_on_cpu")


def settings(model, data, output, *options):
    fixed = ["--learning-rate", "1e-3", "--dtype", "float32", "--frames", "2", "--size", "16"]
    return list(map(str, ["--model", model, "--data", data, "--output", output, *fixed, *options]))


def test_the_command_goes_on_from_its_checkpoint(model, data, tmp_path, capsys):
    train(parse_arguments(settings(model, data, tmp_path / "whole.safetensors", "--steps", "4")))
    train(parse_arguments(settings(model, data, tmp_path / "parts.safetensors", "--steps", "2")))
    train(parse_arguments(settings(model, data, tmp_path / "parts.safetensors", "--steps", "4")))
    assert "resuming at step 2" in capsys.readouterr().out
    whole, parts = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "parts.safetensors")
    assert all((whole[key] == parts[key]).all() for key in whole)
    adapted = load_amg(model, torch.float32, adapter=tmp_path / "whole.safetensors")
    assert adapted.adapter.lora.keys() == load_adapter(tmp_path / "whole.safetensors").lora.keys()


def test_two_processes_learn_what_one_learns_from_twice_the_batch(model, data, tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    train(parse_arguments(settings(model, data, one, "--steps", "1", "--batch-size", "2")))
    launch("flexiact_core.amg.train_amg", settings(model, data, two, "--steps", "1"), tmp_path, processes=2)
    assert_same_first_moments(checkpoint_of(one), checkpoint_of(two))


def test_a_folder_of_pairs_is_encoded_and_learned(model, tmp_path):
    for kind in ("video", "avatar"):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        write_preview(tmp_path / "pairs" / kind / "a.mp4", torch.rand(4, 32, 32, 3), 8)
    (tmp_path / "pairs" / "video" / "a.txt").write_text("a man")
    output = tmp_path / "out.safetensors"
    common = settings(model, tmp_path / "pairs", output, "--steps", "1", "--caption-dropout", "0.5")
    with pytest.raises(FileError, match="--components: a folder of pairs needs text encoder and VAE"):
        train(parse_arguments(common))
    train(parse_arguments([*common, "--components", str(model)]))
    assert output.is_file() and len(list((tmp_path / "out.clips").iterdir())) == 1
