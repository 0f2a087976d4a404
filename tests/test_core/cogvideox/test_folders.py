"""What users have in a base's folder: it loads, or a sentence names exactly what is wrong and the way out."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file
from small_models import put_in_one_file

from flexiact_core.cogvideox.loading import load_base
from flexiact_core.downloads import existing_file, find_unfinished
from flexiact_core.errors import FileError

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 791656\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
SHARD = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors"
INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json"
TEXT_INDEX = "text_encoder/model.safetensors.index.json"


@pytest.fixture
def folder(small_base, tmp_path):
    """A copy of the small base that a test may change."""
    return shutil.copytree(small_base, tmp_path / "models" / "my-base")


def same_as(base, found):
    for part in ("transformer", "vae", "text_encoder"):
        state = getattr(base, part).state_dict()
        assert all(torch.equal(value, state[key]) for key, value in getattr(found, part).state_dict().items())


def whole(folder):
    return folder


def in_the_hubs_cache(folder):
    """As `hf download` without --local-dir: blobs by hash, and links to them under their names."""
    cache = folder.parent / "models--zai-org--CogVideoX-5b-I2V"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "a6f0f4858a8395e7429d82493864ce92bf73af11"
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob = cache / "blobs" / f"{number:064x}"
        shutil.copy(file, blob)
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    shutil.rmtree(folder)
    return snapshot


def linked_from_elsewhere(folder):
    """The weights on another drive, the folder a link to it."""
    elsewhere = folder.parent.parent / "drive"
    shutil.move(folder, elsewhere)
    folder.symlink_to(elsewhere, target_is_directory=True)
    return folder


def with_files_of_macos(folder):
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        file.with_name("._" + file.name).write_bytes(b"\x00\x05\x16\x07" + bytes(120))
    (folder / "transformer" / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    return folder


def shards_without_an_index(folder):
    (folder / INDEX).unlink()
    (folder / TEXT_INDEX).unlink()
    return folder


def variants_of_it_alone(folder):
    for part in ("transformer", "text_encoder", "vae"):
        file = put_in_one_file(folder / part)
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    return folder


def shards_of_a_variant(folder):
    table = json.loads((folder / INDEX).read_text())
    names = {name: name.replace("model-", "model.fp16-") for name in set(table["weight_map"].values())}
    for old, new in names.items():
        (folder / "transformer" / old).rename(folder / "transformer" / new)
    table["weight_map"] = {key: names[name] for key, name in table["weight_map"].items()}
    (folder / INDEX).unlink()
    (folder / INDEX.replace("index", "index.fp16")).write_text(json.dumps(table))
    return folder


def with_a_variant_beside_it(folder):
    save_file({"other": torch.ones(1)}, folder / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    return folder


def with_pickles_beside_it(folder):
    (folder / "text_encoder" / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    return folder


def with_more_files(folder):
    (folder / "README.md").write_text("# A model")
    (folder / "assets").mkdir()
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.lock").touch()
    return folder


def with_a_byte_order_mark(folder):
    for file in folder.rglob("config.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    return folder


def fetched_twice(folder):
    """A try that was given up left its rest, and a later one was finished."""
    kept = folder / ".cache" / "huggingface" / "download" / "transformer"
    kept.mkdir(parents=True)
    (kept / "diffusion_pytorch_model-00002-of-00003.safetensors.abc.incomplete").touch()
    return folder


WORKS = [
    whole, in_the_hubs_cache, linked_from_elsewhere, with_files_of_macos, shards_without_an_index,
    variants_of_it_alone, shards_of_a_variant, with_a_variant_beside_it, with_pickles_beside_it, with_more_files,
    with_a_byte_order_mark, fetched_twice,
]  # fmt: skip


@pytest.mark.parametrize("change", WORKS, ids=lambda change: change.__name__)
def test_a_folder_as_users_have_it_loads_the_same_weights(base, folder, change):
    source = change(folder)
    same_as(base, load_base(source, source, torch.float32))


def put(path, content):
    def change(folder):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def remove(*paths):
    def change(folder):
        for path in paths:
            (folder / path).unlink()

    return change


def then(*changes):
    def change(folder):
        for one in changes:
            one(folder)

    return change


def link_to_nothing(path):
    def change(folder):
        (folder / path).unlink()
        (folder / path).symlink_to(folder / "gone" / "blob")

    return change


def pipe(path):
    def change(folder):
        (folder / path).unlink()
        os.mkfifo(folder / path)

    return change


def only(part, name):
    def change(folder):
        for file in (folder / part).glob("*.safetensors*"):
            file.unlink()
        (folder / part / name).write_bytes(b"weights of another kind")

    return change


def edit_index(**fields):
    def change(folder):
        (folder / INDEX).write_text(json.dumps(json.loads((folder / INDEX).read_text()) | fields))

    return change


def edit_config(part, **fields):
    def change(folder):
        file = folder / part / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


# cause: (how a folder gets there, the words of the sentence)
CAUSES = {
    "a shard is missing": (
        remove(SHARD),
        r"my-base/transformer: \S+-00002-of-00003.safetensors is missing. Download the folder again",
    ),
    "a shard is missing, and the index": (
        remove(SHARD, INDEX),
        r"my-base/transformer: \S+-00002-of-00003.safetensors is missing",
    ),
    "the last shard is missing, and the index": (
        remove(SHARD.replace("00002", "00003"), INDEX),
        r"my-base/transformer: \S+-00003-of-00003.safetensors is missing",
    ),
    "a shard is a Git LFS pointer": (
        put(SHARD, LFS),
        r"-00002-of-00003.safetensors: this is a Git LFS pointer, .* 'git lfs pull'",
    ),
    "a config is a Git LFS pointer": (
        put("vae/config.json", LFS),
        "my-base/vae/config.json: this is a Git LFS pointer",
    ),
    "a shard is a web page": (put(SHARD, PAGE), r"-00002-of-00003.safetensors: this is a web page.*Download the file"),
    "a config is a web page": (put("text_encoder/config.json", PAGE), "text_encoder/config.json: this is a web page"),
    "an index is a web page": (put(INDEX, PAGE), "transformer/diff.*index.json: this is a web page"),
    "a file is empty": (put(SHARD, ""), "-00002-of-00003.safetensors: the file is empty. Download it again"),
    "a file is cut short": (put(SHARD, bytes(50)), "-00002-of-00003.safetensors: the file is damaged or cut short"),
    "a link leads nowhere": (
        link_to_nothing(SHARD),
        "-00002-of-00003.safetensors: this is a link to a file that is not there .*cache that was cleaned",
    ),
    "the config's link leads nowhere": (
        link_to_nothing("transformer/config.json"),
        "my-base/transformer/config.json: this is a link to a file that is not there",
    ),
    "a pipe": (pipe(SHARD), "-00002-of-00003.safetensors: this is a pipe or a device, no file"),
    "a pipe for a config": (pipe("vae/config.json"), "my-base/vae/config.json: this is a pipe or a device"),
    "a folder in a file's place": (
        then(remove("vae/config.json"), put("vae/config.json/x", "")),
        "my-base/vae/config.json: this is a folder, where a file was expected",
    ),
    "a browser is not finished": (
        then(remove(SHARD), put(SHARD + ".crdownload", "x")),
        r"download is not finished \(\S+-00002-of-00003.safetensors.crdownload lies there\). Start the download again",
    ),
    "aria2 is not finished": (put(SHARD + ".aria2", "x"), r"download is not finished \(\S+.aria2 lies there\)"),
    "hf download --local-dir is not finished": (
        then(remove(SHARD), put(".cache/huggingface/download/transformer/Cc4n1b.4e8b.incomplete", "x")),
        r"-00002-of-00003.safetensors: its download is not finished \(Cc4n1b.4e8b.incomplete lies there\)",
    ),
    "nothing of a part is finished": (
        then(only("vae", "diffusion_pytorch_model.safetensors.part"), lambda folder: None),
        r"my-base/vae: the download of its weights is not finished \(diffusion_pytorch_model.safetensors.part lies",
    ),
    "pickles alone": (
        only("text_encoder", "pytorch_model.bin"),
        r"my-base/text_encoder: its weights are pickles \(pytorch_model.bin\).*Download the .safetensors files",
    ),
    "GGUF alone": (only("transformer", "model.gguf"), r"my-base/transformer: its weights are of a kind .*model.gguf"),
    "no weights at all": (only("vae", "notes.txt"), "my-base/vae: a .safetensors file is missing. Download the folder"),
    "an index that reaches out of its folder": (
        edit_index(weight_map={"a": "../../../secret.safetensors"}),
        "index.json: it names files that are no .safetensors files of this folder",
    ),
    "an index that names other files": (
        edit_index(weight_map={"a": "config.json"}),
        "index.json: it names files that are no .safetensors files of this folder",
    ),
    "an index whose table is none": (edit_index(weight_map=[1, 2]), "index.json: no table of files in it"),
    "an index whose table holds numbers": (edit_index(weight_map={"a": 3}), "index.json: no table of files in it"),
    "an index that is a list": (put(INDEX, "[]"), "index.json: a table of settings was expected"),
    "an index that is endless": (put(INDEX, "[" * 200_000), "index.json: the file is damaged or cut short"),
    "a config of more layers than there are": (
        edit_config("transformer", num_layers=300_000),
        "my-base: config.json says 300000 layers, the weights have",
    ),
    "a text encoder of more blocks than there are": (
        edit_config("text_encoder", num_layers=300_000),
        "my-base/text_encoder: 300000 blocks in config.json, ",
    ),
    "a VAE of more layers than there are": (
        edit_config("vae", layers_per_block=300_000),
        "my-base/vae/config.json: layers_per_block is not as its weights are",
    ),
    "a number beyond all models": (
        edit_config("transformer", sample_width=10**12),
        "my-base/transformer/config.json: sample_width is beyond what a model can have",
    ),
    "a config of other kinds of values": (
        edit_config("vae", block_out_channels="wide"),
        "my-base/vae/config.json: not the settings of such a model",
    ),
    "a scheduler that is none": (
        put("scheduler/scheduler_config.json", '{"beta_schedule": "unknown"}'),
        "my-base/scheduler/scheduler_config.json: not the settings of a scheduler",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_what_is_wrong_with_a_folder_is_named(folder, tmp_path, cause):
    change, words = CAUSES[cause]
    change(folder)
    with pytest.raises(FileError, match=words) as error:
        load_base(folder, folder, torch.float32)
    assert str(tmp_path) not in str(error.value), "where it lies on the machine is nobody's business"
    assert "secret" not in str(error.value)


def test_in_the_hubs_cache_an_unfinished_blob_is_named(folder):
    snapshot = in_the_hubs_cache(folder)
    (snapshot / SHARD).unlink()
    (snapshot.parent.parent / "blobs" / "77aa.incomplete").touch()
    with pytest.raises(FileError, match=r"-00002-of-00003.safetensors: its download is not finished \(77aa.incomplete"):
        load_base(snapshot, snapshot, torch.float32)


def test_code_of_a_model_folder_never_runs(folder, tmp_path):
    mark = tmp_path / "code-has-run"
    code = f"open({str(mark)!r}, 'w')\nclass Thing:\n    pass\n"
    for part, kind in (("text_encoder", "AutoModel"), ("tokenizer", "AutoTokenizer")):
        (folder / part / "thing.py").write_text(code)
        name = "config.json" if part == "text_encoder" else "tokenizer_config.json"
        file = folder / part / name
        own = {"auto_map": {kind: "thing.Thing"}, "architectures": ["os.system"], "tokenizer_class": "Thing"}
        file.write_text(json.dumps(json.loads(file.read_text()) | own))
    load_base(folder, folder, torch.float32)
    assert not mark.exists()


@pytest.mark.parametrize("field", ["quantization_config", "_attn_implementation", "auto_map", "dtype"])
def test_settings_of_how_to_run_a_text_encoder_are_not_followed(base, folder, field):
    edit_config("text_encoder", **{field: {"load_in_4bit": True, "quant_method": "bitsandbytes"}})(folder)
    same_as(base, load_base(folder, folder, torch.float32))


def test_a_whole_file_is_not_called_unfinished(tmp_path):
    for name in ("a.safetensors", "a.safetensors.part", "b.safetensors.part"):
        (tmp_path / name).write_bytes(bytes(9))
    assert find_unfinished(tmp_path / "a.safetensors") is None
    assert find_unfinished(tmp_path / "b.safetensors").name == "b.safetensors.part"
    assert find_unfinished(tmp_path / "c.safetensors") is None
    assert existing_file(tmp_path / "a.safetensors") == tmp_path / "a.safetensors"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/proc/self/environ"])
def test_devices_and_what_the_system_makes_up_are_refused(path):
    if not os.path.exists(path):
        pytest.skip("this system has none")
    with pytest.raises(FileError, match="this is a pipe or a device|the file is empty"):
        existing_file(path)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000 + "b", "\0"])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    with pytest.raises(FileError, match="no such file in"):
        existing_file(tmp_path / name)
