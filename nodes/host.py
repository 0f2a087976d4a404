"""The door to ComfyUI: model folders, memory, progress, interrupt, and its IMAGE and VIDEO values."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyAPISync, InputImpl, Types
from comfy_execution.utils import get_executing_context

from .sockets import BaseModel

BASE_FOLDER = "CogVideo"
FLEXIACT_FOLDER = "flexiact"
DTYPES = ("auto", "bf16", "fp16", "fp32")
FPS = 8
# A list without an entry could not be queued, and so could not say what is missing.
NONE_FOUND = "none found"

BASE_DOWNLOAD = "hf download zai-org/CogVideoX-5b-I2V --local-dir {folder}/CogVideoX-5b-I2V"
FLEXIACT_DOWNLOAD = "hf download shiyi0408/FlexiAct --local-dir {folder}"
BENCHMARK_DOWNLOAD = "hf download shiyi0408/FlexiAct --repo-type dataset --local-dir {folder}/benchmark"

# Name of a part inside the module that its patcher holds.
HELD_AS = "model"
_WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")

logger = logging.getLogger("flexiact")


def register_folders() -> None:
    """Makes models/CogVideo and models/flexiact known to ComfyUI, beside what extra_model_paths.yaml names.

    The folders of the pack's own small world come last: what a user has under the same name goes first.
    """
    shipped = Path(__file__).parent.parent / "flexiact_core" / "world" / "weights"
    for name in (BASE_FOLDER, FLEXIACT_FOLDER):
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
        folder_paths.add_model_folder_path(name, str(shipped / name))


def list_bases() -> list[str]:
    """Names of all CogVideoX folders and single-file transformers, relative to their model folder."""
    return sorted(_find_bases())


def list_base_folders() -> list[str]:
    """Names of the diffusers folders among list_bases()."""
    return sorted(name for name, path in _find_bases().items() if path.is_dir())


def base_path(name: str) -> Path | None:
    """Where a base of list_bases() lies; None if it is not there."""
    return _find_bases().get(name)


def list_weights(words: bytes) -> list[str]:
    """Names of the weight files under models/flexiact whose keys hold these words."""
    return sorted(name for name, path in _find_weights().items() if _mentions(path, words))


def weights_path(name: str) -> Path | None:
    """Where a file of list_weights() lies; None if it is not there."""
    return _find_weights().get(name)


def result_path(kind: str, name: str, training: str) -> Path:
    """Where a training's result is saved: KIND/NAME.safetensors, with a number if another training has that name."""
    from ..flexiact_core.checkpoint import read_metadata

    folder = _flexiact_root() / kind
    path, number = folder / f"{_plain(name)}.safetensors", 2
    while path.exists() and read_metadata(path).get("training") != training:
        path, number = folder / f"{_plain(name)}_{number}.safetensors", number + 1
    return path


def training_path(name: str, training: str) -> Path:
    """Where the checkpoint of a training lies; trainings that differ in any setting have different ones."""
    return _training_folder() / f"{_plain(name)}-{training[:12]}.safetensors"


def unfinished_training(name: str, steps: int) -> bool:
    """Whether a checkpoint of this name has not reached `steps` steps."""
    from ..flexiact_core.checkpoint import read_metadata

    checkpoints = _training_folder().glob(f"{_plain(name)}-*.safetensors")
    return any(int(read_metadata(path).get("steps_done", 0)) < steps for path in checkpoints)


def encodings_folder(base: str) -> Path:
    """Where clips encoded for a base are kept, so that a training that is resumed does not encode them again."""
    return _training_folder() / "clips" / base


def list_released_actions() -> list[str]:
    """'kind/action' of all actions in the authors' benchmark layout under models/flexiact."""
    return sorted(_find_released_actions())


def released_action_path(name: str) -> Path | None:
    """The captions folder of an action of list_released_actions(); None if it is not there."""
    return _find_released_actions().get(name)


def missing_benchmark(name: str) -> str:
    """The sentence for a released action that is not there."""
    folder = _flexiact_root()
    return (
        f"'{name}' is not under {folder}. Choose another from the list, or fetch the authors' data: "
        f"{BENCHMARK_DOWNLOAD.format(folder=folder)}"
    )


def input_path(name: str) -> Path:
    """A file named with its full path, or in ComfyUI's input folder."""
    return Path(folder_paths.get_input_directory()) / name.strip()


def read_image(path: Path):
    """An IMAGE value (1, H, W, 3) of a picture file. Raises CheckpointError if it cannot be read."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    from ..flexiact_core.errors import CheckpointError

    try:
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    except OSError as error:
        raise CheckpointError(f"{path.name}: this picture cannot be read ({error}). Save it again.") from error
    return torch.from_numpy(np.array(picture)).float()[None] / 255


def native_size(model: BaseModel) -> tuple[int, int, int]:
    """Width and height in pixels and number of frames that the base was trained on."""
    from ..flexiact_core.cogvideox.model import native_size

    return native_size(model.base)


def digest(identity: dict) -> str:
    """A short name for a set of settings: equal sets, equal names."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def tensor_digest(*tensors) -> str:
    """A short name for the contents of tensors."""
    contents = hashlib.sha256()
    for tensor in tensors:
        contents.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return contents.hexdigest()


def pack_version() -> str:
    """The version in pyproject.toml, the only place that holds it."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^version = "(.+)"', text, re.MULTILINE)[1]


def missing_base(name: str) -> str:
    """The sentence for a base that is not there."""
    folder = folder_paths.get_folder_paths(BASE_FOLDER)[0]
    return (
        f"'{name}' is not in {folder}. Choose another from the list, or fetch the base: "
        f"{BASE_DOWNLOAD.format(folder=folder)}"
    )


def missing_weights(name: str) -> str:
    """The sentence for an FAE or RefAdapter file that is not there."""
    folder = folder_paths.get_folder_paths(FLEXIACT_FOLDER)[0]
    return (
        f"'{name}' is not in {folder}. Choose another from the list, or fetch the released files: "
        f"{FLEXIACT_DOWNLOAD.format(folder=folder)}"
    )


def compute_dtype(name: str):
    """The torch dtype of a choice in DTYPES; auto is bf16 where the device computes in it, else fp16, fp32 on a CPU."""
    import comfy.model_management as memory
    import torch

    named = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if name in named:
        return named[name]
    device = memory.get_torch_device()
    if memory.is_device_cpu(device):
        return torch.float32
    return torch.bfloat16 if memory.should_use_bf16(device) else torch.float16


def to_base_model(base, float8_products: bool = False) -> BaseModel:
    """The socket value of a loaded base: each part in a patcher, through which ComfyUI loads and frees it.

    With float8_products, matrices of the transformer that are stored in float8 are multiplied in float8 while
    sampling, where that is possible; where not, it is said.
    """
    import comfy.model_management as memory
    import comfy.ops

    gpu = memory.get_torch_device()
    model = BaseModel(
        base=base,
        transformer=_patcher(
            # The product gives 16 bits.
            base.transformer,
            gpu,
            memory.unet_offload_device(),
            float8_products and base.dtype.itemsize == 2,
        ),
        text_encoder=_patcher(base.text_encoder, memory.text_encoder_device(), memory.text_encoder_offload_device()),
        vae=_patcher(base.vae, memory.vae_device(), memory.vae_offload_device()),
    )
    if float8_products and not any(isinstance(layer, comfy.ops.fp8_ops.Linear) for layer in base.transformer.modules()):
        say(
            "float8_fast needs a card that multiplies in float8, weights in e4m3, and dtype bf16 or fp16. Something of "
            "that is missing: the weights stay float8, and are cast when they are used."
        )
    return model


@contextmanager
def on_device(patcher, activation_bytes: int) -> Iterator:
    """Loads a part with room for `activation_bytes` beside it, and gives the device it runs on.

    Tensors made inside are ordinary ones: inference tensors, ComfyUI's default, could not be trained on later.
    """
    import comfy.model_management as memory

    with normal_tensors():
        memory.load_models_gpu([patcher], memory_required=activation_bytes)
        yield patcher.load_device


@contextmanager
def on_device_to_train(patcher, activation_bytes: int) -> Iterator:
    """As on_device, with gradients on, and with weights that can take part in training."""
    import torch

    with normal_tensors(), torch.enable_grad():
        load_to_train(patcher, activation_bytes)
        yield patcher.load_device


def load_to_train(patcher, activation_bytes: int) -> None:
    """Loads a part, or loads it again, so that it can take part in training."""
    import comfy.model_management as memory

    memory.load_models_gpu([patcher], memory_required=activation_bytes)
    # Weights that ComfyUI moved for another node are inference tensors; one after the other is copied.
    for tensor in (*patcher.model.parameters(), *patcher.model.buffers()):
        if tensor.is_inference():
            tensor.data = tensor.data.clone()


def training_memory(
    model: BaseModel, shape: Sequence[int], batch_size: int, checkpointing: str, rank: int | None = None
) -> tuple[int, bool]:
    """An estimate of what a training step needs beside the weights, and whether to checkpoint gradients.

    shape is that of the video latents, (clips, L, C, h, w). Motion tokens are learned, or with a rank a RefAdapter.
    Without checkpointing every layer's activations are kept; with it, one layer's and every layer's input.
    """
    import comfy.model_management as memory

    config = model.base.transformer.config
    num_layers, width = config.num_layers, config.num_attention_heads * config.attention_head_dim
    num_learned = num_layers * width * (config.max_text_seq_length if rank is None else 4 * 2 * rank)
    layer_bytes = transformer_bytes(model, shape[1], *shape[-2:], batch_size)
    # A layer's input is one of the sixteen tensors that an estimate of a layer counts.
    whole, checkpointed = layer_bytes * num_layers, layer_bytes * (32 + num_layers) // 16
    if rank is not None:
        # peft keeps the input of each projection in float32, too.
        whole = whole * 3 // 2
    # In float32, with gradient and two moments.
    whole, checkpointed = (activations + 4 * 4 * num_learned for activations in (whole, checkpointed))
    if checkpointing == "auto":
        weights = model.transformer.model_size()
        fits = whole + weights < 0.9 * memory.get_total_memory(model.transformer.load_device)
        checkpointing = "off" if fits else "on"
    return (checkpointed, True) if checkpointing == "on" else (whole, False)


@contextmanager
def normal_tensors() -> Iterator[None]:
    """Computes without gradients, but not in inference mode."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        yield


def sampling_transformer(model: BaseModel, merge_adapters: bool):
    """The patcher to load for sampling, and the adapters that its weights do not hold.

    Merged adapters are ComfyUI's own weight patches on a clone: the weights come back bit for bit as soon as another
    patcher of the base is loaded. Weights stored in float8 are too coarse to take them in; that is said.
    """
    if not model.adapters or not merge_adapters:
        return model.transformer, model.adapters
    stored = model.base.transformer.transformer_blocks[0].attn1.to_q.weight.dtype
    if stored.itemsize == 1:
        say("The base's weights are stored in float8, too coarse to take in RefAdapter: it runs beside them.")
        return model.transformer, model.adapters
    return model.merged.get("transformer", lambda: _merge_adapters(model)), ()


def encode_prompt(model: BaseModel, prompt: str):
    """Embeddings of a prompt, from the last few where they are there; says so if the prompt is cut."""
    from ..flexiact_core.cogvideox.model import count_tokens, encode_prompt

    length = model.base.transformer.config.max_text_seq_length
    num_tokens = count_tokens(model.base.tokenizer, prompt)
    if num_tokens > length:
        say(f"The prompt has {num_tokens} tokens; the model reads the first {length}, the rest is left out.")

    def compute():
        width = model.base.text_encoder.config.d_model
        with on_device(model.text_encoder, 64 * length * width) as device:
            return encode_prompt(model.base.text_encoder, model.base.tokenizer, prompt, length, device).cpu()

    return model.encodings.get(("prompt", prompt), compute)


def encode_image(model: BaseModel, image):
    """The VAE's posterior of a fitted picture (1, H, W, 3), from the last few where it is there."""
    from ..flexiact_core.cogvideox.model import encode_pixels
    from ..flexiact_core.video import to_model_pixels

    digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()

    def compute():
        with on_device(model.vae, encode_bytes(model, 1, *image.shape[1:3])) as device:
            return encode_pixels(model.base.vae, to_model_pixels(image), device)

    return model.encodings.get(("image", tuple(image.shape), digest), compute)


def transformer_bytes(
    model: BaseModel, num_latent_frames: int, latent_height: int, latent_width: int, batch: int, acceleration=None
) -> int:
    """An estimate of what one forward of the transformer needs beside its weights, with what an Acceleration holds."""
    config = model.base.transformer.config
    tokens = config.max_text_seq_length + num_latent_frames * latent_height * latent_width // config.patch_size**2
    width = config.num_attention_heads * config.attention_head_dim
    # The feed-forward layer alone holds four widths in and out; q, k, v and the residuals come on top.
    values, itemsize = batch * tokens * width, model.base.dtype.itemsize
    return values * 16 * itemsize + (acceleration.held_bytes(values, itemsize) if acceleration else 0)


def encode_bytes(model: BaseModel, num_frames: int, height_px: int, width_px: int) -> int:
    """An estimate of what encoding frames needs beside the weights, in tensors of one frame in the widest layer."""
    # The VAE takes a few frames at a time, so more frames than those need no more.
    return (20 + 6 * min(num_frames, 12)) * height_px * width_px * _widest_layer(model)


def decode_bytes(model: BaseModel, num_frames: int, height_px: int, width_px: int) -> int:
    """An estimate of what decoding frames needs beside the weights: the layers of one tile, and the video twice."""
    from ..flexiact_core.cogvideox.model import TILE_PX

    tile = min(height_px, TILE_PX[0]) * min(width_px, TILE_PX[1])
    video = 3 * num_frames * height_px * width_px * model.base.dtype.itemsize
    return 200 * tile * _widest_layer(model) + 2 * video


def _widest_layer(model: BaseModel) -> int:
    """Bytes of one pixel in the layers of full resolution."""
    return model.base.vae.config.block_out_channels[0] * model.base.dtype.itemsize


class Progress:
    """Progress of one node: a bar, a line of text, a preview, and the point where Cancel takes effect."""

    def __init__(self, total: int):
        self.total = total
        self.execution = ComfyAPISync().execution

    def step(self, done: int, preview=None) -> None:
        """Reports that `done` of all steps are done, with a picture (H, W, 3) in 0..1 where there is one.

        Raises ComfyUI's interrupt if the user has pressed Cancel.
        """
        import comfy.model_management as memory

        memory.throw_exception_if_processing_interrupted()
        self.execution.set_progress(done, self.total, preview_image=None if preview is None else _to_pil(preview))


class TrainingProgress(Progress):
    """Progress of a training: besides the bar, a line with loss, speed and time left, and the loss curve as preview."""

    def __init__(self, total: int, done: int):
        super().__init__(total)
        self.started, self.done_before = time.monotonic(), done
        self.shown, self.losses, self.sample = 0.0, [], None

    def step(self, done: int, loss: float) -> None:
        """Reports that `done` of all steps are done, the last with this loss; text and curve about once a second.

        Raises ComfyUI's interrupt if the user has pressed Cancel.
        """
        import comfy.model_management as memory

        from ..flexiact_core.plots import draw_loss

        memory.throw_exception_if_processing_interrupted()
        self.losses.append(loss)
        now = time.monotonic()
        if now - self.shown < 1 and done < self.total:
            self.execution.set_progress(done, self.total)
            return
        self.shown = now
        seconds = (now - self.started) / max(1, done - self.done_before)
        left = seconds * (self.total - done)
        recent = self.losses[-50:]
        show(
            f"step {done}/{self.total}  loss {sum(recent) / len(recent):.3f}  {seconds:.2f} s/step  "
            f"{int(left // 60)} min {int(left % 60)} s left"
        )
        picture = draw_loss(self.losses)[0] if self.sample is None else self.sample
        self.execution.set_progress(done, self.total, preview_image=_to_pil(picture, scale=1))

    def show_sample(self, frames) -> None:
        """Shows a few frames of a sample video from now on."""
        from ..flexiact_core.plots import tile_videos

        self.sample = tile_videos([frames])[0]


def interrupt() -> type[BaseException]:
    """The exception that ComfyUI raises, in progress reports and inside models, once the user has pressed Cancel."""
    import comfy.model_management as memory

    return memory.InterruptProcessingException


def say(text: str) -> None:
    """Shows a line of text on the running node, and in the log."""
    logger.info(text)
    show(text)


def show(text: str) -> None:
    """Shows a line of text on the running node."""
    from server import PromptServer

    context = get_executing_context()
    if context is not None and PromptServer.instance is not None:
        PromptServer.instance.send_progress_text(text, context.node_id)


def nothing():
    """A value for an output that was not asked for: what is connected to it does not run."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)


def to_video(frames):
    """A VIDEO value at 8 fps from frames (T, H, W, 3) in 0..1."""
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=Fraction(FPS)))


def from_reference(reference, image_fps: float, start: float, duration: float):
    """Frames (T, H, W, C) of a VIDEO or IMAGE value from second `start` on, for `duration` seconds, and their speed.

    A video file gives frames at 8 per second, by its own time stamps; an IMAGE batch is taken to be at image_fps.
    """
    from ..flexiact_core.flexiact.clips import TRAINING_FPS, trim_frames
    from ..flexiact_core.video import read_video

    if isinstance(reference, InputImpl.VideoFromFile):
        trim_start, trim_duration = reference.get_active_trim_window()
        left = max(0.0, trim_duration - start) if trim_duration else 0.0
        wanted = min(filter(None, (duration, left)), default=0.0)
        with normal_tensors():
            frames = read_video(reference.get_stream_source(), TRAINING_FPS, trim_start + start, wanted)
        return frames, TRAINING_FPS
    fps = float(image_fps)
    if hasattr(reference, "get_components"):
        components = reference.get_components()
        reference, fps = components.images, float(components.frame_rate)
    return ordinary(trim_frames(reference, fps, start, duration)), fps


def ordinary(tensor):
    """A copy of a tensor from another node that is no inference tensor."""
    with normal_tensors():
        return tensor.clone()


def generator(seed: int):
    """A random generator on the CPU, the same on any machine."""
    import torch

    return torch.Generator().manual_seed(seed)


def _patcher(module, load_device, offload_device, float8_products=False):
    import comfy.model_patcher
    import torch

    _make_castable(module, load_device, float8_products)
    # A diffusers module's `device` cannot be set, and ComfyUI sets it: so it rides in a plain one.
    holder = torch.nn.ModuleDict({HELD_AS: module})
    return comfy.model_patcher.CoreModelPatcher(holder, load_device=load_device, offload_device=offload_device)


def _merge_adapters(model: BaseModel):
    from comfy.weight_adapter import LoRAAdapter

    from ..flexiact_core.flexiact.refadapter import ALPHA_PER_RANK, matrices_by_weight

    patcher = model.transformer.clone()
    for adapter, weight in model.adapters:
        patches = {
            f"{HELD_AS}.{name}": LoRAAdapter(set(), (up, down, None, None, None, None))
            for name, (down, up) in matrices_by_weight(adapter).items()
        }
        taken = patcher.add_patches(patches, weight * ALPHA_PER_RANK)
        assert len(taken) == len(patches)
    return patcher


def _make_castable(module, load_device, float8_products: bool) -> None:
    """Lets ComfyUI keep single layers in RAM and cast them when used, which plain torch layers cannot."""
    import comfy.ops
    import torch

    for layer in module.modules():
        castable = getattr(comfy.ops.manual_cast, type(layer).__name__, None)
        # Exactly torch's own classes: subclasses bring a forward of their own.
        if castable is not None and type(layer) is getattr(torch.nn, type(layer).__name__, None):
            if castable is comfy.ops.manual_cast.Linear and layer.weight.dtype == torch.float8_e4m3fn:
                castable = _float8_linear(load_device, float8_products)
            layer.__class__ = castable
            layer.bias = getattr(layer, "bias", None)


@lru_cache
def _float8_linear(load_device, products: bool):
    """ComfyUI's linear layer for float8 weights: one that multiplies in float8 where that is asked for, with `products`
    or for all of ComfyUI (--fast fp8_matrix_mult), and the device can. It casts where gradients are needed.
    """
    import comfy.ops
    import torch

    # The weights' format alone decides it here, so the one to compute in does not matter.
    chosen = comfy.ops.pick_operations(torch.float8_e4m3fn, None, load_device, fp8_optimizations=products)
    if chosen is not comfy.ops.fp8_ops:
        return comfy.ops.manual_cast.Linear

    class Float8Linear(chosen.Linear):
        def forward_comfy_cast_weights(self, input):
            # The float8 product has no gradient, and cuts its input to float8's range in place.
            if torch.is_grad_enabled():
                return comfy.ops.manual_cast.Linear.forward_comfy_cast_weights(self, input)
            return super().forward_comfy_cast_weights(input)

    return Float8Linear


def _find_bases() -> dict[str, Path]:
    from ..flexiact_core.cogvideox.loading import is_base_folder

    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths(BASE_FOLDER)):
        for folder, subfolders, files in os.walk(root, followlinks=True):
            folder = Path(folder)
            if folder != root and is_base_folder(folder):
                found.setdefault(folder.relative_to(root).as_posix(), folder)
                subfolders.clear()
                continue
            for file in (folder / name for name in files if name.endswith(".safetensors")):
                if _mentions(file, b"patch_embed.text_proj"):
                    found.setdefault(file.relative_to(root).as_posix(), file)
    return found


def _find_released_actions() -> dict[str, Path]:
    from ..flexiact_core.flexiact.dataset import find_released_actions

    found: dict[str, Path] = {}
    for root in folder_paths.get_folder_paths(FLEXIACT_FOLDER):
        found = find_released_actions(Path(root)) | found
    return found


def _find_weights() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths(FLEXIACT_FOLDER)):
        for folder, _, files in os.walk(root, followlinks=True):
            for file in (Path(folder) / name for name in files if name.endswith(_WEIGHT_SUFFIXES)):
                if not file.name.startswith("."):
                    found.setdefault(file.relative_to(root).as_posix(), file)
    return found


def _mentions(path: Path, words: bytes) -> bool:
    stat = path.stat()
    return _mentions_at(path, words, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _mentions_at(path: Path, words: bytes, _modified: int, _size: int) -> bool:
    from ..flexiact_core.checkpoint import mentions

    return mentions(path, words)


def _to_pil(picture, scale: int = 8):
    from PIL import Image

    image = Image.fromarray((picture * 255).round().byte().cpu().numpy())
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


def _flexiact_root() -> Path:
    return Path(folder_paths.get_folder_paths(FLEXIACT_FOLDER)[0])


def _training_folder() -> Path:
    return _flexiact_root() / "training"


def _plain(name: str) -> str:
    # Letters of any language stay; what a file system may refuse does not.
    return "".join(letter if letter.isalnum() or letter in "-_ ." else "_" for letter in name).strip(" .") or "action"
