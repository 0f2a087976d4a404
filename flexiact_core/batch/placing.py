"""Parts of a base on a device of which only so much memory may be taken: one at a time, and what of it does not fit,
layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import SettingError

# What the device's library, fragments, motion tokens and adapters take beside weights and work.
SPARE_BYTES = 1_000_000_000
# Layers whose weights are used by their own forward alone; of other modules, trees over the same weights make copies,
# which a hook would not follow.
STREAMED = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Embedding)


class Placing:
    """Where parts of a base are while they work: on `device`, with no more than limit_bytes there, or all if None."""

    def __init__(self, device: torch.device, limit_bytes: int | None = None):
        self.device, self.limit_bytes = device, limit_bytes
        self.streamed: set[int] = set()

    @contextmanager
    def placed(self, part: torch.nn.Module, work_bytes: int) -> Iterator[torch.device]:
        """The device, on which a part can work while this lasts; its work takes so many bytes beside the weights.

        Without a limit the part stays there. With one, as many layers as fit beside the work are held there, and the
        others come when they are used and go again (diffusers' group offloading of single layers).
        Raises SettingError if the work alone is more than the limit.
        """
        if self.limit_bytes is None:
            part.to(self.device)
            yield self.device
            return
        held = self._divide(part, work_bytes)
        for module in held:
            _move(module, self.device)
        try:
            yield self.device
        finally:
            for module in held:
                _move(module, torch.device("cpu"))

    def _divide(self, part: torch.nn.Module, work_bytes: int) -> list[torch.nn.Module]:
        """The layers to hold on the device; the others get hooks that bring them, once and for all."""
        layers = sorted((module for module in part.modules() if _bytes_of(module)), key=_bytes_of)
        room = self.limit_bytes - work_bytes - SPARE_BYTES
        if sum(map(_bytes_of, layers)) > room:
            # One of those that come and go is there at a time.
            room -= max((_bytes_of(layer) for layer in layers if isinstance(layer, STREAMED)), default=0)
        if room < 0:
            raise SettingError(
                f"--memory {self.limit_bytes / 2**30:g}: a video of this size needs about "
                f"{(self.limit_bytes - room) / 2**30:.1f} GB. Ask for a smaller video, or state more."
            )
        held, taken = [], 0
        # Small ones are held first: many small transfers take longer than a few large ones.
        for layer in layers:
            if id(layer) in self.streamed:
                continue
            taken += _bytes_of(layer)
            if taken <= room or not isinstance(layer, STREAMED):
                held.append(layer)
            else:
                self._stream(layer)
        return held

    def _stream(self, layer: torch.nn.Module) -> None:
        from diffusers.hooks import apply_group_offloading

        apply_group_offloading(
            layer, onload_device=self.device, offload_device=torch.device("cpu"), offload_type="leaf_level"
        )
        self.streamed.add(id(layer))


def _own_tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _bytes_of(module: torch.nn.Module) -> int:
    """Bytes of a module's own weights, without those of its children."""
    return sum(tensor.nbytes for tensor in _own_tensors(module))


def _move(module: torch.nn.Module, device: torch.device) -> None:
    for tensor in _own_tensors(module):
        tensor.data = tensor.data.to(device)
