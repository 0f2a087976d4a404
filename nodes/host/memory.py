"""Memory and devices: ComfyUI's patchers, which load and free weights, and tensors that outlive its inference mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

DTYPES = ("auto", "bf16", "fp16", "fp32")

# Name of a part inside the module that its patcher holds.
HELD_AS = "model"


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


def free_ram_bytes() -> int:
    """How much of the computer's memory can be taken now."""
    import comfy.model_management as memory
    import torch

    return memory.get_free_memory(torch.device("cpu"))


def card_bytes() -> int | None:
    """How much memory the graphics card has; None where ComfyUI computes without one."""
    import comfy.model_management as memory

    device = memory.get_torch_device()
    return None if memory.is_device_cpu(device) else int(memory.get_total_memory(device))


def to_patcher(
    module, load_device, offload_device, float8_products: bool = False, files=(), leaves: bool = False
):  # fmt: skip
    """ComfyUI's owner of a module's memory, which loads it, in parts where room is short, and frees it.

    files are stamps of large files that hold its weights still: they are looked at before each run.
    With float8_products, matrices stored in float8 are multiplied in float8 while sampling, where that is possible.
    leaves: whether it leaves the device at the end of on_device().
    """
    import comfy.model_patcher
    import torch

    _make_castable(module, load_device, float8_products)
    # A diffusers module's `device` cannot be set, and ComfyUI sets it: so it rides in a plain one.
    holder = torch.nn.ModuleDict({HELD_AS: module})
    holder.flexiact_files, holder.flexiact_leaves = tuple(files), leaves
    return comfy.model_patcher.CoreModelPatcher(holder, load_device=load_device, offload_device=offload_device)


def add_lora(patcher, matrices, weight: float, name_of) -> None:
    """Gives a patcher the change of a LoRA on its weights, which come back bit for bit with another patcher.

    matrices are LoraMatrices by the name of the weight that they change; name_of gives the patcher's name of it.
    """
    from comfy.weight_adapter import LoRAAdapter

    patches = {
        name_of(name): LoRAAdapter(set(), (own.up, own.down, own.scale * own.rank, None, None, None))
        for name, own in matrices.items()
    }
    taken = patcher.add_patches(patches, weight)
    assert len(taken) == len(patches)


def drawing_device():
    """The device that triangles are drawn on: ComfyUI's, if that is one of CUDA's kind, else the CPU."""
    import comfy.model_management as memory
    import torch

    device = memory.get_torch_device()
    # Others lack the reductions of whole numbers that decide which triangle is in front.
    return device if device.type == "cuda" else torch.device("cpu")


@contextmanager
def on_device(patcher, activation_bytes: int) -> Iterator:
    """Loads a part with room for `activation_bytes` beside it, and gives the device it runs on.

    Tensors made inside are ordinary ones: inference tensors, ComfyUI's default, could not be trained on later.
    """
    import comfy.model_management as memory

    _check_files(patcher)
    with normal_tensors():
        memory.load_models_gpu([patcher], memory_required=activation_bytes)
        try:
            yield patcher.load_device
        finally:
            if getattr(patcher.model, "flexiact_leaves", False):
                memory.unload_model_and_clones(patcher)


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

    _check_files(patcher)
    memory.load_models_gpu([patcher], memory_required=activation_bytes)
    # Weights that ComfyUI moved for another node are inference tensors; one after the other is copied.
    for tensor in (*patcher.model.parameters(), *patcher.model.buffers()):
        if tensor.is_inference():
            tensor.data = tensor.data.clone()


def choose_checkpointing(patcher, choice: str, num_bytes: tuple[int, int]) -> tuple[int, bool]:
    """What a training step takes beside the weights, and whether gradients are checkpointed.

    num_bytes is what it takes without and with checkpointing; choice is on, off, or auto: on if memory would not do.
    """
    import comfy.model_management as memory

    whole, checkpointed = num_bytes
    if choice == "auto":
        fits = whole + patcher.model_size() < 0.9 * memory.get_total_memory(patcher.load_device)
        choice = "off" if fits else "on"
    return (checkpointed, True) if choice == "on" else (whole, False)


def has_room(patcher, activation_bytes: int) -> bool:
    """Whether a card holds a part whole with this room beside it; a CPU gains nothing from more at once."""
    import comfy.model_management as memory

    device = patcher.load_device
    whole = patcher.model_size() + activation_bytes
    return not memory.is_device_cpu(device) and whole < 0.9 * memory.get_total_memory(device)


def free_bytes() -> int:
    """How much of the machine's main memory is free."""
    import comfy.model_management as memory
    import torch

    return int(memory.get_free_memory(torch.device("cpu")))


@contextmanager
def normal_tensors() -> Iterator[None]:
    """Computes without gradients, but not in inference mode."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        yield


def ordinary(tensor):
    """A copy of a tensor from another node that is no inference tensor."""
    with normal_tensors():
        return tensor.clone()


def _check_files(patcher) -> None:
    """Passes if the files that hold the weights are as they were. Raises FileError before a weight is touched."""
    from ...flexiact_core.weight_files import check_unchanged

    check_unchanged(getattr(patcher.model, "flexiact_files", ()))


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
