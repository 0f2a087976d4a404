"""The loader, called as ComfyUI calls it."""

import shutil

import pytest
import torch

cogvideox = pytest.importorskip("flexiact_pack.nodes.cogvideox", reason="needs ComfyUI: run `make test`")

from flexiact_pack import nodes  # noqa: E402
from flexiact_pack.nodes.host import folders as host_folders  # noqa: E402
from flexiact_pack.nodes.host import memory, progress  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from small_models import make_base, make_fae, make_refadapter, weights_of  # noqa: E402

from flexiact_core.errors import FileError  # noqa: E402


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Model folders of this test's own, the only ones that ComfyUI knows."""
    import folder_paths

    for kind in nodes.MODEL_FOLDERS:
        (tmp_path / kind.name).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind.name, ([str(tmp_path / kind.name)], set()))
    return tmp_path


@pytest.fixture
def base(folders, small_base):
    return shutil.copytree(small_base, folders / "CogVideo" / "somewhere" / "any name")


def save_single_file(base, file, dtype):
    state = weights_of(base / "transformer")
    matrices = {key for key, value in state.items() if value.ndim == 2 and ".norm" not in key and "blocks" in key}
    half = torch.bfloat16 if dtype.itemsize == 1 else dtype
    save_file({key: value.to(dtype if key in matrices else half) for key, value in state.items()}, file)
    return file


def load(model, components="auto", dtype="fp32", **options):
    with torch.inference_mode():
        return cogvideox.LoadCogVideoXI2V.execute(model, components, dtype, **options).args[0]


def test_folders_are_listed_wherever_they_lie_and_other_files_are_not(base, folders):
    (folders / "CogVideo" / "notes.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    assert list(cogvideox.find_bases()) == ["somewhere/any name"]
    assert load("somewhere/any name").base.transformer.config.num_layers == 2


def test_folders_of_extra_model_paths_are_listed_too(base, folders, tmp_path_factory):
    import folder_paths

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    make_base(elsewhere / "other")
    folder_paths.add_model_folder_path(cogvideox.BASES.name, str(elsewhere))
    assert list(cogvideox.find_bases()) == ["other", "somewhere/any name"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn], ids=str)
def test_a_single_file_is_loaded_with_the_rest_from_the_only_folder(base, folders, dtype):
    save_single_file(base, folders / "CogVideo" / "single.safetensors", dtype)
    assert "single.safetensors" in list(cogvideox.find_bases())
    model = load("single.safetensors", dtype="bf16")
    stored = model.base.transformer.transformer_blocks[0].attn1.to_q.weight.dtype
    assert stored == (dtype if dtype.itemsize == 1 else torch.bfloat16)


def test_a_single_file_among_several_folders_asks_which_one(base, folders):
    make_base(folders / "CogVideo" / "second")
    save_single_file(base, folders / "CogVideo" / "single.safetensors", torch.bfloat16)
    with pytest.raises(FileError, match="single.safetensors.*components.*2 folders found"):
        load("single.safetensors")
    assert load("single.safetensors", components="second").base.dtype == torch.float32


def put_part_files(base, folders, dtype=torch.float32):
    """The base's text encoder and VAE as single files in ComfyUI's folders."""
    for part, place in (("text_encoder", "text_encoders/t5xxl.safetensors"), ("vae", "vae/cogvideox.safetensors")):
        save_file({key: value.to(dtype) for key, value in weights_of(base / part).items()}, folders / place)


def test_text_encoder_and_vae_can_be_files_of_comfyuis_own_folders(base, folders):
    put_part_files(base, folders)
    save_file({"x": torch.ones(1)}, folders / "vae" / "of another model.safetensors")
    assert list(cogvideox.find_text_encoders()) == ["t5xxl.safetensors"]
    assert list(cogvideox.find_vaes()) == ["cogvideox.safetensors"]
    expected = load("somewhere/any name").base
    shutil.rmtree(base / "text_encoder")
    found = load("somewhere/any name", text_encoder="t5xxl.safetensors", vae="cogvideox.safetensors").base
    for part in ("text_encoder", "vae"):
        state = getattr(expected, part).state_dict()
        assert all(torch.equal(value, state[key]) for key, value in getattr(found, part).state_dict().items())


def test_a_base_without_a_vocabulary_takes_the_one_that_comfyui_brings(base):
    from flexiact_core.cogvideox.tokenizer import load_tokenizer

    assert load_tokenizer(host_folders.t5_vocabulary())("a cat").input_ids == [3, 9, 1712, 1]
    shutil.rmtree(base / "tokenizer")
    # It is T5's, so a small text encoder knows fewer pieces.
    with pytest.raises(FileError, match="text_encoders/t5_tokenizer: 32100 pieces, and the text encoder knows 128"):
        load("somewhere/any name")


def test_files_that_are_not_there_are_named(base, folders):
    answer = cogvideox.LoadCogVideoXI2V.validate_inputs("somewhere/any name", text_encoder="gone.safetensors")
    assert answer == "'gone.safetensors' is not in models/text_encoders. Choose another from the list, or put it there."
    assert cogvideox.LoadCogVideoXI2V.validate_inputs("somewhere/any name") is True
    with pytest.raises(FileError, match="'gone.safetensors' is not in models/vae"):
        load("somewhere/any name", vae="gone.safetensors")


def test_a_base_that_does_not_fit_into_memory_is_refused(base, monkeypatch):
    monkeypatch.setattr(memory, "free_ram_bytes", lambda: 1000)
    with pytest.raises(FileError, match="any name: needs 0.0 GB of memory to load .transformer 0.0, text encoder 0.0"):
        load("somewhere/any name")


def test_a_file_overwritten_in_place_is_noticed_before_the_next_run(base, folders, sample, monkeypatch):
    from flexiact_core import weight_files
    from flexiact_core.cogvideox import parts

    for module in (weight_files, parts):
        monkeypatch.setattr(module, "MAX_READ_BYTES", 100)
    model = load("somewhere/any name")
    with memory.on_device(model.vae, 0):
        pass
    file = next((base / "vae").glob("*.safetensors"))
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(
        FileError, match="diffusion_pytorch_model.safetensors: the file was changed after it was loaded"
    ):
        with memory.on_device(model.vae, 0):
            pass
    with pytest.raises(FileError, match="was changed after it was loaded"):
        memory.load_to_train(model.transformer, 0)


def test_actions_and_adapters_are_told_apart_by_what_is_in_them(folders):
    from flexiact_pack.nodes.flexiact import FILES

    root = folders / "flexiact"
    make_fae(root / "a_lora.safetensors")
    make_fae(root / "deep" / "down" / "fae.pt")
    make_refadapter(root / "motion.safetensors")
    make_refadapter(root / "deep" / "adapter.pt")
    actions = host_folders.find_files(FILES, b"motion_inversion_tokens")
    assert list(actions) == ["a_lora.safetensors", "deep/down/fae.pt"]
    assert list(host_folders.find_files(FILES, b".lora_")) == ["deep/adapter.pt", "motion.safetensors"]


def test_a_missing_base_is_named_with_its_folder_and_the_command_that_fetches_it(folders):
    answer = cogvideox.LoadCogVideoXI2V.validate_inputs("CogVideoX-5b-I2V")
    assert "'CogVideoX-5b-I2V' is not in" in answer
    assert "hf download zai-org/CogVideoX-5b-I2V --local-dir models/CogVideo" in answer
    assert str(folders) not in answer


def test_an_empty_list_still_says_what_to_do(folders):
    from flexiact_pack.nodes.flexiact import ApplyRefAdapter, LoadFAEEmbedding

    for node, name in ((cogvideox.LoadCogVideoXI2V, "CogVideo"), (ApplyRefAdapter, "flexiact"),
                       (LoadFAEEmbedding, "flexiact")):  # fmt: skip
        answer = node.validate_inputs(host_folders.NONE_FOUND)
        assert f"models/{name}" in answer and str(folders) not in answer
        assert "hf download" in answer


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"in_channels": 16}, "text-to-video"),
        ({"in_channels": 48}, "48 input channels"),
        ({"patch_size_t": 2}, "learned positions in a model whose patches span frames"),
    ],
    ids=str,
)
def test_another_kind_of_model_is_refused_with_what_it_is_and_what_is_needed(folders, small_base, config, found):
    import json

    base = shutil.copytree(small_base, folders / "CogVideo" / "other kind")
    file = base / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    with pytest.raises(FileError, match=f"{found}.*image-to-video base"):
        load("other kind")


def test_weights_can_be_trained_on_though_comfyui_computes_in_inference_mode(base):
    model = load("somewhere/any name")
    assert not any(weight.is_inference() for weight in model.base.transformer.parameters())


@pytest.fixture
def sample():
    """A two-step video of a base that the loader gives, with the loader's options."""
    from comfy_execution.graph import DynamicPrompt
    from comfy_execution.progress import reset_progress_state
    from comfy_execution.utils import CurrentNodeContext
    from flexiact_pack.nodes.flexiact import FlexiActSampler

    picture = torch.rand(1, 64, 64, 3)

    def sample(name, **options):
        reset_progress_state("prompt", DynamicPrompt({"node": {"class_type": "FlexiActSampler", "inputs": {}}}))
        with CurrentNodeContext("prompt", "node"), torch.inference_mode():
            return FlexiActSampler.execute(
                load(name, **options), picture, "a cat", "", width=64, height=64, num_frames=9, steps=2, cfg=6.0,
                bias_strength=1.0, hold_until=800, off_below=700, seed=0, scheduler="DPM", weighting="paper",
            ).args[0]  # fmt: skip

    return sample


def test_an_acceleration_is_what_its_widgets_say():
    from flexiact_core.cogvideox.acceleration import Acceleration

    (run,) = nodes.FlexiActAcceleration.execute(False, 0.2, 5, True, "taylor", "math").args
    assert run.run == Acceleration("taylor", threshold=0.2, interval=5, compiled=True, attention="math")
    assert run.merge_adapters is False


def test_float8_weights_are_cast_when_they_are_used(base, folders, sample):
    save_single_file(base, folders / "CogVideo" / "single.safetensors", torch.float8_e4m3fn)
    whole, small = sample("somewhere/any name"), sample("single.safetensors")
    assert not torch.equal(whole, small)
    assert (whole - small).abs().mean() < 0.1
    # The loader's own float8 leaves norms and biases as they are, which that file does not.
    kept = sample("somewhere/any name", weights="float8")
    assert 0 < (whole - kept).abs().mean() < (whole - small).abs().mean()


@pytest.fixture
def float8_device(monkeypatch):
    """Lets ComfyUI take the CPU for a card that multiplies in float8: its own layers do the same there, by casting."""
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: True)
    memory._float8_linear.cache_clear()
    yield
    memory._float8_linear.cache_clear()


@pytest.fixture
def products(monkeypatch):
    """What ComfyUI's float8 product gave, one for each time it was tried."""
    import comfy.ops

    given, fp8_linear = [], comfy.ops.fp8_linear
    monkeypatch.setattr(comfy.ops, "fp8_linear", lambda *inputs: given.append(fp8_linear(*inputs)) or given[-1])
    return given


def test_float8_fast_multiplies_in_float8(base, sample, float8_device, products):
    exact = sample("somewhere/any name", dtype="bf16")
    kept = sample("somewhere/any name", dtype="bf16", weights="float8")
    assert products == []
    fast = sample("somewhere/any name", dtype="bf16", weights="float8_fast")
    assert products and all(product is not None for product in products)
    assert 0 < (fast - kept).abs().mean() < 0.05
    assert (fast - exact).abs().mean() < 0.1


def test_comfyuis_own_flag_multiplies_in_float8_too(base, sample, float8_device, products, monkeypatch):
    import comfy.cli_args

    monkeypatch.setattr(comfy.cli_args.args, "fast", {comfy.cli_args.PerformanceFeature.Fp8MatrixMultiplication})
    sample("somewhere/any name", dtype="bf16")
    assert products == []
    sample("somewhere/any name", dtype="bf16", weights="float8")
    assert products


def test_float8_fast_learns_as_float8_does(base, float8_device, products):
    """Also where no gradient is needed yet, as in the layers before the first motion tokens are read."""

    def run(weights):
        loaded = load("somewhere/any name", dtype="bf16", weights=weights)
        layer = loaded.base.transformer.transformer_blocks[0].attn1.to_q
        tokens = torch.linspace(-1, 1, layer.in_features, dtype=torch.bfloat16).repeat(3, 1)
        with torch.enable_grad():
            return layer(tokens)

    assert torch.equal(run("float8_fast"), run("float8"))
    assert products == []


@pytest.mark.parametrize("missing", ["card", "16 bits"])
def test_float8_fast_says_where_it_is_no_faster(base, sample, monkeypatch, products, request, missing):
    if missing != "card":
        request.getfixturevalue("float8_device")
    dtype = "bf16" if missing == "card" else "fp32"
    said = []
    monkeypatch.setattr(progress, "say", said.append)
    fast = sample("somewhere/any name", dtype=dtype, weights="float8_fast")
    assert len(said) == 1 and said[0].startswith("float8_fast needs a card that multiplies in float8, weights in e4m3")
    assert torch.equal(fast, sample("somewhere/any name", dtype=dtype, weights="float8"))
    assert products == []
