"""The pack's socket types and the value that each carries. Values are never changed once they flow."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

    from ..flexiact_core.cogvideox.acceleration import Acceleration
    from ..flexiact_core.cogvideox.encodings import Clips
    from ..flexiact_core.cogvideox.model import CogVideoXI2V, Posterior
    from ..flexiact_core.flexiact.fae import FAE
    from ..flexiact_core.flexiact.refadapter import RefAdapter


class Recent:
    """The last few results of a computation by key, so that a run that changes only the seed does not repeat it."""

    def __init__(self, size: int = 8):
        self.size = size
        self.results: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result under `key`, computed if it is not among the last few."""
        if key not in self.results:
            self.results[key] = compute()
        self.results.move_to_end(key)
        while len(self.results) > self.size:
            self.results.popitem(last=False)
        return self.results[key]


@dataclass(frozen=True, eq=False)
class BaseModel:
    """What flows through COGVIDEOX_I2V: the base, ComfyUI's patchers that own its memory, and adapters to apply."""

    base: CogVideoXI2V
    transformer: ModelPatcher
    text_encoder: ModelPatcher
    vae: ModelPatcher
    adapters: tuple[tuple[RefAdapter, float], ...] = ()
    # Shared by all branches: text and image encodings do not depend on adapters.
    encodings: Recent = field(default_factory=Recent)
    # Each value's own, so it is made anew by replace(): the patcher whose weights take in the adapters.
    merged: Recent = field(default_factory=Recent, init=False)

    def with_adapter(self, adapter: RefAdapter, weight: float) -> BaseModel:
        """A new value with one adapter more; this one is left as it is."""
        return replace(self, adapters=(*self.adapters, (adapter, weight)))


@dataclass(frozen=True, eq=False)
class ActionClips:
    """What flows through FLEXIACT_CLIPS: encoded clips of one action, and what they were made of.

    first_video is the uncropped clip (T, H, W, 3) in 0..1; digest tells these clips from all others.
    """

    encoded: Clips
    caption: str
    first_video: Tensor
    digest: str

    @property
    def first_image(self) -> Posterior:
        """The posterior of the uncropped clip's first frame."""
        image = self.encoded.image
        return type(image)(image.mean[:1], image.std[:1])


@dataclass(frozen=True)
class RunAcceleration:
    """What flows through FLEXIACT_ACCELERATION: how a run saves time, and whether adapters go into the weights."""

    run: Acceleration
    merge_adapters: bool = True


# What flows through FLEXIACT_FAE: each action with its own strength.
WeightedFAEs = tuple[tuple["FAE", float], ...]

CogVideoXI2VSocket = io.Custom("COGVIDEOX_I2V")
FAESocket = io.Custom("FLEXIACT_FAE")
AccelerationSocket = io.Custom("FLEXIACT_ACCELERATION")
ClipsSocket = io.Custom("FLEXIACT_CLIPS")
# A scene of the small world and the name of the action it is to do.
ExampleSocket = io.Custom("FLEXIACT_EXAMPLE")
