"""What Action Transfer does: adapters put into the weights or beside them, the run, the picture of attention."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from .host import memory, progress
from .sampling import acceleration_of, sample_video, used_prompts
from .sockets import BaseModel, RunAcceleration, WeightedFAEs


class AttentionPicture:
    """How much the video attends to the action in every layer and step of a run, to be drawn."""

    def __init__(self, model: BaseModel, steps: int):
        self.num_layers, self.steps = model.base.transformer.config.num_layers, steps
        self.shares: list[dict[int, float]] = [{}]  # by step and layer

    def on_share(self, layer: int, share) -> None:
        """Takes the share (0..1) that the action's tokens get in a layer, as transfer_action() gives it."""
        self.shares[-1][layer] = float(share)

    def next_step(self) -> None:
        """What comes from now on belongs to the next step."""
        self.shares.append({})

    def draw(self):
        """The picture, an IMAGE."""
        import torch

        from ..flexiact_core.plots import draw_heat_map

        # A layer that a step cache skips has no share.
        steps = self.shares[: self.steps]
        values = torch.tensor([[step.get(layer, torch.nan) for step in steps] for layer in range(self.num_layers)])
        title = "share of attention on the action's tokens"
        return draw_heat_map(values, title=title, x_label="step", y_label="layer")


def perform_action(
    model: BaseModel, picture, prompts, faes: WeightedFAEs, bias, acceleration: RunAcceleration | None = None,
    attention: AttentionPicture | None = None, *, num_frames: int, steps: int, **settings,
):  # fmt: skip
    """Frames (num_frames, H, W, 3) in which the picture, as fit_picture() gives it, performs the actions.

    prompts are the prompt and the negative one; settings are cfg, scheduler and seed, as Run has them.
    Raises FileError if an action is of another base, before anything is loaded.
    """
    from ..flexiact_core.cogvideox.sampling import Run
    from ..flexiact_core.flexiact.fae import check_fae
    from ..flexiact_core.flexiact.transfer import transfer_action

    for fae, _ in faes:
        check_fae(fae, model.base.transformer)
    acceleration = acceleration_of(model, acceleration)
    transformer, adapters = sampling_transformer(model, acceleration.merge_adapters)

    def compute(posterior, *embeds, device, on_step):
        def on_each_step(index, latents):
            if attention:
                attention.next_step()
            on_step(index, latents)

        return transfer_action(
            model.base, posterior, *embeds,
            Run(num_frames, device, steps, acceleration=acceleration.run, on_step=on_each_step, **settings),
            faes=faes, adapters=adapters, bias=bias, on_share=attention.on_share if attention else None,
        )  # fmt: skip

    return sample_video(
        model, transformer, picture, used_prompts(*prompts, settings["cfg"]), compute,
        num_frames=num_frames, steps=steps, acceleration=acceleration.run,
    )  # fmt: skip


# The patchers whose weights take in the adapters, by the value that they belong to.
_merged: WeakKeyDictionary[BaseModel, Any] = WeakKeyDictionary()


def sampling_transformer(model: BaseModel, merge_adapters: bool):
    """The patcher to load for sampling, and the adapters that its weights do not hold.

    Merged adapters are ComfyUI's own weight patches on a clone: the weights come back bit for bit as soon as another
    patcher of the base is loaded. Weights stored in float8 are too coarse to take them in; that is said.
    """
    if not model.adapters or not merge_adapters:
        return model.transformer, model.adapters
    stored = model.base.transformer.transformer_blocks[0].attn1.to_q.weight.dtype
    if stored.itemsize == 1:
        progress.say("The base's weights are stored in float8, too coarse to take in RefAdapter: it runs beside them.")
        return model.transformer, model.adapters
    if model not in _merged:
        _merged[model] = _merge_adapters(model)
    return _merged[model], ()


def _merge_adapters(model: BaseModel):
    from ..flexiact_core.flexiact.refadapter import to_lora

    patcher = model.transformer.clone()
    for adapter, weight in model.adapters:
        memory.add_lora(patcher, to_lora(adapter).matrices, weight, lambda name: f"{memory.HELD_AS}.{name}")
    return patcher
