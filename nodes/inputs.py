"""Inputs that several nodes have, said once. An id, its type and its place in a node's list never change."""

from __future__ import annotations

from collections.abc import Iterable

from comfy_api.latest import io

from ..flexiact_core.cogvideox.family import COGVIDEOX_1_0 as RELEASED
from ..flexiact_core.cogvideox.own_values import AUTO
from ..flexiact_core.flexiact.bias import AUTO as AUTO_WEIGHTING
from .host import folders, memory
from .sockets import AccelerationSocket, CogVideoXI2VSocket

ANY_SEED = 0xFFFFFFFFFFFFFFFF


def model(tooltip: str, lazy: bool = False):
    """The base that a node works with."""
    return CogVideoXI2VSocket.Input("model", lazy=lazy or None, tooltip=tooltip)


def file_list(name: str, found: Iterable[str], tooltip: str):
    """A choice of what was found in a model folder; where nothing was, of the one entry that says so.

    A list without an entry could not be queued, and so could not say what is missing.
    """
    return io.Combo.Input(name, options=folders.listed(found), tooltip=tooltip)


def dtype(more: str):
    """The number format that a model computes in."""
    return io.Combo.Input(
        "dtype",
        options=list(memory.DTYPES),
        default="auto",
        advanced=True,
        tooltip=(
            "The number format to compute in. auto: bf16 where the card has it, else fp16; fp32 on a CPU. " + more
        ),
    )


def seed(
    tooltip: str = "Fixes all randomness: the same graph and seed give the same frames.", new_each_run: bool = True
):
    """A seed, with ComfyUI's control of what it is after a run: another one, or the same."""
    control = True if new_each_run else io.ControlAfterGenerate.fixed
    return io.Int.Input("seed", default=0, min=0, max=ANY_SEED, control_after_generate=control, tooltip=tooltip)


def mask():
    """What of a picture is not to be seen."""
    return io.Mask.Input(
        "mask",
        optional=True,
        lazy=True,
        tooltip=(
            "The MASK that Load Image gives beside the picture: its transparent parts become white. Left open: the "
            "whole picture is seen, and transparent parts show what colour they hide, often black."
        ),
    )


def side(name: str, more: str | None = None):
    """Width or height of a video."""
    more = more or f"CogVideoX-5B-I2V makes {RELEASED.width_px}x{RELEASED.height_px} only."
    return io.Int.Input(
        name,
        default=AUTO,
        min=AUTO,
        max=4096,
        step=RELEASED.size_multiple,
        tooltip=f"{name.capitalize()} in pixels, a multiple of {RELEASED.size_multiple}. 0: the base's own. {more}",
    )


def any_side(name: str, default: int, more: str = "", step: int = 1):
    """Width or height of a picture or video of any model."""
    least = step if default else 0
    steps_of = f", a multiple of {step}" if step > 1 else ""
    tooltip = f"{name.capitalize()} in pixels{steps_of}. {more}".strip()
    return io.Int.Input(
        name, default=default, min=max(least, 2) if default else 0, max=4096, step=step, tooltip=tooltip
    )


def num_frames(tooltip: str | None = None, multiple: int = RELEASED.frame_multiple, most: int = 1025):
    """The length of a video: `multiple` times a whole number, and one more."""
    tooltip = tooltip or (
        f"Frames at {RELEASED.fps} per second, {RELEASED.frame_rule}: {RELEASED.min_frames} is about one second, "
        f"{RELEASED.num_frames} six. 0: as many as the base was trained on. More take longer and more memory. "
        f"CogVideoX-5B-I2V makes {RELEASED.num_frames} at most."
    )
    # ComfyUI's own steps would start at the least, which is 0: web/whole_frames.js makes those that a video can have.
    rule = {"flexiact_frames": [multiple, 1]}
    return io.Int.Input("num_frames", default=AUTO, min=AUTO, max=most, tooltip=tooltip, extra_dict=rule)


def steps(default: int, most: int, tooltip: str):
    """How many steps a training takes."""
    return io.Int.Input("steps", default=default, min=1, max=most, tooltip=tooltip)


def sampling_steps(released: int):
    """How many steps a sampling of a CogVideoX base takes."""
    tooltip = f"Denoising steps. 0: the base's own number, {released} as released. Fewer are faster and rougher."
    return io.Int.Input("steps", default=AUTO, min=AUTO, max=1000, tooltip=tooltip)


def prompt():
    """What the video shows."""
    return io.String.Input(
        "prompt",
        multiline=True,
        dynamic_prompts=True,
        tooltip=(
            "What the video shows: the subject and the action, in a sentence or two. May be empty. What is over the "
            "model's length is cut, and the node says so."
        ),
    )


def negative_prompt():
    """What the video does not show."""
    return io.String.Input(
        "negative_prompt",
        multiline=True,
        tooltip="What to keep away from. Empty is the released setting. Has no effect at cfg 1.",
    )


def cfg(name: str = "cfg", tooltip: str | None = None, advanced: bool = False, released: float = RELEASED.cfg):
    """Guidance."""
    own = f"0: the base's own value, {released:g} as released."
    tooltip = f"{tooltip or 'Guidance towards the prompt.'} {own} 1: none, half the work. High: harsh colours."
    return io.Float.Input(
        name, default=float(AUTO), min=float(AUTO), max=30.0, step=0.1, advanced=advanced or None, tooltip=tooltip
    )  # fmt: skip


def scheduler():
    """How steps are taken."""
    from ..flexiact_core.cogvideox.sampling import SAMPLERS

    return io.Combo.Input(
        "scheduler",
        options=list(SAMPLERS),
        default="DPM",
        tooltip="How steps are taken. DPM: the released one, adds fresh noise at each step. DDIM: adds none.",
    )


def acceleration():
    """Ways to save time."""
    return AccelerationSocket.Input(
        "acceleration",
        optional=True,
        tooltip="Ways to save time, from FlexiAct Acceleration. Left open: every step in full.",
    )


def caption(tooltip: str):
    """What a reference shows."""
    return io.String.Input("caption", multiline=True, tooltip=tooltip)


def crops(more: str = ""):
    """How many versions of a clip are cut."""
    tooltip = (
        "Versions of the clip cut at random places; the first is uncut. 12: released value. 1: the clip alone, and the "
        "action sticks to its layout."
    )
    return io.Int.Input("crops", default=12, min=1, max=64, tooltip=f"{tooltip} {more}".strip())


def result_name(default: str, what: str):
    """The file name of what a training learns."""
    return io.String.Input(
        "name",
        default=default,
        tooltip=f"File name of the {what}, without ending. If another training has that name, a number is added.",
    )


def learning_rate(default: float, least: float, whose: str):
    """The size of a training step; `whose` names where the default is from."""
    value = f"{default:f}".rstrip("0")
    return io.Float.Input(
        "learning_rate",
        default=default,
        min=least,
        max=1.0,
        step=least,
        tooltip=f"Size of each step. {value}: {whose}. High: faster, then unstable. Low: slow.",
    )


def batch_size(tooltip: str, advanced: bool = False):
    """How much a training step looks at."""
    return io.Int.Input("batch_size", default=1, min=1, max=64, advanced=advanced or None, tooltip=tooltip)


def bias():
    """When, and how strongly, the action speaks: bias_strength, hold_until, off_below and weighting."""
    return [
        io.Float.Input(
            "bias_strength",
            default=1.0,
            min=-10.0,
            max=10.0,
            step=0.05,
            tooltip=(
                "Added weight on the action while motion forms, in attention logits; with weighting auto, times the "
                "base's own. 0: none, as the released scripts run. 1: the paper's value."
            ),
        ),
        io.Int.Input(
            "hold_until",
            default=800,
            min=1,
            max=1000,
            advanced=True,
            tooltip=(
                "Timestep (999 is pure noise, 0 the clean video) down to which the full bias is held. Lower: "
                "the action speaks longer. Must lie above off_below. Not used with weighting auto."
            ),
        ),
        io.Int.Input(
            "off_below",
            default=700,
            min=0,
            max=999,
            advanced=True,
            tooltip=(
                "Timestep at which the bias has faded to 0, along a cosine. Lower: the action fades later. Not used "
                "with weighting auto."
            ),
        ),
        weighting(),
    ]


def weighting():
    """How the bias fades."""
    return io.Combo.Input(
        "weighting",
        options=[AUTO_WEIGHTING, "paper", "release"],
        default=AUTO_WEIGHTING,
        advanced=True,
        tooltip=(
            "How the bias fades. auto: where the base's own motion forms, 800 to 700 where it does not say. paper: by "
            "hold_until and off_below, the whole curve scaled by bias_strength. release: the fading part starts at 1 "
            "whatever the strength, as the authors' code does."
        ),
    )
