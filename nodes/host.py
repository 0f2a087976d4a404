"""The door to ComfyUI: model folders, memory, progress, interrupt, and its IMAGE and VIDEO values."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
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

BASE_DOWNLOAD = "hf download zai-org/CogVideoX-5b-I2V --local-dir {folder}/CogVideoX-5b-I2V"
FLEXIACT_DOWNLOAD = "hf download shiyi0408/FlexiAct --local-dir {folder}"

_WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")

logger = logging.getLogger("flexiact")


def register_folders() -> None:
    """Makes models/CogVideo and models/flexiact known to ComfyUI, beside what extra_model_paths.yaml names."""
    for name in (BASE_FOLDER, FLEXIACT_FOLDER):
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))


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


def new_weights_path(name: str) -> Path:
    """A free path models/flexiact/fae/NAME.safetensors; a number is added if the name is taken."""
    folder = Path(folder_paths.get_folder_paths(FLEXIACT_FOLDER)[0]) / "fae"
    plain = "".join(letter if letter.isalnum() or letter in "-_ ." else "_" for letter in name).strip(" .") or "action"
    path, number = folder / f"{plain}.safetensors", 2
    while path.exists():
        path, number = folder / f"{plain}_{number}.safetensors", number + 1
    return path


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


def to_base_model(base) -> BaseModel:
    """The socket value of a loaded base: each part in a patcher, through which ComfyUI loads and frees it."""
    import comfy.model_management as memory

    gpu = memory.get_torch_device()
    return BaseModel(
        base=base,
        transformer=_patcher(base.transformer, gpu, memory.unet_offload_device()),
        text_encoder=_patcher(base.text_encoder, memory.text_encoder_device(), memory.text_encoder_offload_device()),
        vae=_patcher(base.vae, memory.vae_device(), memory.vae_offload_device()),
    )


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

    with on_device(patcher, activation_bytes) as device:
        _make_ordinary(patcher.model)
        with torch.enable_grad():
            yield device


@contextmanager
def normal_tensors() -> Iterator[None]:
    """Computes without gradients, but not in inference mode."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        yield


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
        with on_device(model.vae, vae_bytes(model, *image.shape[1:3])) as device:
            return encode_pixels(model.base.vae, to_model_pixels(image), device)

    return model.encodings.get(("image", tuple(image.shape), digest), compute)


def transformer_bytes(model: BaseModel, num_latent_frames: int, latent_height: int, latent_width: int, batch: int) -> int:
    """An estimate of what one forward of the transformer needs beside its weights."""
    config = model.base.transformer.config
    tokens = config.max_text_seq_length + num_latent_frames * latent_height * latent_width // config.patch_size**2
    width = config.num_attention_heads * config.attention_head_dim
    # The feed-forward layer alone holds four widths in and out; q, k, v and the residuals come on top.
    return batch * tokens * width * 16 * model.base.dtype.itemsize


def vae_bytes(model: BaseModel, height_px: int, width_px: int) -> int:
    """An estimate of what encoding or decoding needs beside the weights: a few layers of eight frames at once."""
    channels = model.base.vae.config.block_out_channels[0]
    return 4 * 8 * height_px * width_px * channels * model.base.dtype.itemsize


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


def say(text: str) -> None:
    """Shows a line of text on the running node, and in the log."""
    from server import PromptServer

    logger.info(text)
    context = get_executing_context()
    if context is not None and PromptServer.instance is not None:
        PromptServer.instance.send_progress_text(text, context.node_id)


def to_video(frames):
    """A VIDEO value at 8 fps from frames (T, H, W, 3) in 0..1."""
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=Fraction(FPS)))


def from_reference(reference):
    """Frames (T, H, W, C) and frames per second of a VIDEO, or of an IMAGE batch, taken to be at 8 fps."""
    if hasattr(reference, "get_components"):
        components = reference.get_components()
        return components.images, float(components.frame_rate)
    return reference, float(FPS)


def ordinary(tensor):
    """A copy of a tensor from another node that is no inference tensor."""
    with normal_tensors():
        return tensor.clone()


def generator(seed: int):
    """A random generator on the CPU, the same on any machine."""
    import torch

    return torch.Generator().manual_seed(seed)


def _make_ordinary(module) -> None:
    # Weights that ComfyUI moved for another node are inference tensors, one after the other is copied.
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_inference():
            tensor.data = tensor.data.clone()


def _patcher(module, load_device, offload_device):
    import comfy.model_patcher
    import torch

    _make_castable(module)
    # A diffusers module's `device` cannot be set, and ComfyUI sets it: so it rides in a plain one.
    holder = torch.nn.ModuleDict({"model": module})
    return comfy.model_patcher.CoreModelPatcher(holder, load_device=load_device, offload_device=offload_device)


def _make_castable(module) -> None:
    """Lets ComfyUI keep single layers in RAM and cast them when used, which plain torch layers cannot."""
    import comfy.ops
    import torch

    for layer in module.modules():
        castable = getattr(comfy.ops.manual_cast, type(layer).__name__, None)
        # Exactly torch's own classes: subclasses bring a forward of their own.
        if castable is not None and type(layer) is getattr(torch.nn, type(layer).__name__, None):
            layer.__class__ = castable
            layer.bias = getattr(layer, "bias", None)


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


def _to_pil(picture):
    from PIL import Image

    return Image.fromarray((picture * 255).round().byte().cpu().numpy()).resize(
        (picture.shape[1] * 8, picture.shape[0] * 8), Image.Resampling.BICUBIC
    )
