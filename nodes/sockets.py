"""The pack's socket types and the value that each carries. Values are never changed once they flow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

    from ..flexiact_core.amg.model import AMG
    from ..flexiact_core.cogvideox.acceleration import Acceleration
    from ..flexiact_core.cogvideox.cards import Plan
    from ..flexiact_core.cogvideox.encodings import Clips
    from ..flexiact_core.cogvideox.model import CogVideoXI2V, Posterior
    from ..flexiact_core.flexiact.fae import FAE


@dataclass(frozen=True, eq=False)
class BaseModel:
    """What flows through COGVIDEOX_I2V: the base, ComfyUI's patchers that own its memory, and adapters to apply.

    Each adapter comes with its weight. What it is, is the business of the system that put it there and applies it.
    plan is how the base takes its place on the card, and how a run saves time that does not say it otherwise.
    """

    base: CogVideoXI2V
    transformer: ModelPatcher
    text_encoder: ModelPatcher
    vae: ModelPatcher
    adapters: tuple[tuple[Any, float], ...] = ()
    plan: Plan | None = None

    def with_adapter(self, adapter: Any, weight: float) -> BaseModel:
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


@dataclass(frozen=True, eq=False)
class AMGModel:
    """What flows through AMG_MODEL: the model, ComfyUI's patcher of its UNet, and what encodes words and pictures.

    words and pictures are the model's own parts or ComfyUI's CLIP and VAE, as amg_parts has them; None where neither
    is there.
    """

    amg: AMG
    unet: ModelPatcher
    words: Any = None
    pictures: Any = None


# What flows through FLEXIACT_FAE: each action with its own strength.
WeightedFAEs = tuple[tuple["FAE", float], ...]

AMGSocket = io.Custom("AMG_MODEL")
# A clip of the release's: encoded frames or pictures of avatars.
AMGAvatarSocket = io.Custom("AMG_AVATAR")
CogVideoXI2VSocket = io.Custom("COGVIDEOX_I2V")
FAESocket = io.Custom("FLEXIACT_FAE")
AccelerationSocket = io.Custom("FLEXIACT_ACCELERATION")
ClipsSocket = io.Custom("FLEXIACT_CLIPS")
# A scene of the small world and the name of the action it is to do.
ExampleSocket = io.Custom("FLEXIACT_EXAMPLE")
PersonSocket = io.Custom("FLEXIACT_PERSON")
TakeSocket = io.Custom("FLEXIACT_TAKE")
# Avatars and their places: flexiact_core.avatars.scene.Scene.
AvatarSceneSocket = io.Custom("AVATAR_SCENE")
# Joints in OpenPose's JSON, as ComfyUI's own pose nodes have them.
PosesSocket = io.Custom("POSE_KEYPOINT")
# A loaded ACT-VAE: nodes.act_vae.LoadedACTVAE.
ActVaeSocket = io.Custom("ACT_VAE")
