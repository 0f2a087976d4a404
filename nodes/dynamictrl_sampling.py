"""What Pose Transfer does: poses drawn and encoded, an action if there is one, the run, the frames to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .host import encodings, memory, progress
from .sampling import acceleration_of, complete_run, sample_video, used_prompts
from .sockets import BaseModel, RunAcceleration, WeightedFAEs


def check_inputs(
    width: int, height: int, num_frames: int, frame_rule: str, asked: Mapping[str, Any], waiting: list[str]
) -> None:
    """Passes if these settings can be a video, as far as is known before all inputs are computed.

    Raises SettingError or ShapeError otherwise.
    """
    from ..flexiact_core.cogvideox.family import DYNAMICTRL
    from ..flexiact_core.cogvideox.own_values import check_asked
    from ..flexiact_core.dynamictrl.frames import most_frames, plan_frames
    from ..flexiact_core.dynamictrl.inputs import check_one_of, read_poses

    check_asked(DYNAMICTRL, {"width": width, "height": height, "cfg": asked["cfg"]})
    plan_frames(num_frames or most_frames(DYNAMICTRL.num_frames, frame_rule), frame_rule)
    pose_control(asked)
    check_one_of("poses" in asked, "pose_video" in asked)
    if "poses" in asked and "poses" not in waiting:
        read_poses(asked["poses"])


def pose_control(asked: Mapping[str, Any]):
    """The core's PoseControl of the node's inputs."""
    from ..flexiact_core.dynamictrl.animate import PoseControl

    return PoseControl(asked["pose_strength"], asked["pose_start"], asked["pose_end"], asked["image_scale"])


def count_frames(model: BaseModel, num_frames: int, frame_rule: str) -> int:
    """How many frames a run gives that is asked for num_frames; 0 are the base's own, as many as the rule allows."""
    from ..flexiact_core.dynamictrl.frames import most_frames

    return num_frames or most_frames(complete_run(model, num_frames=0)["num_frames"], frame_rule)


def perform_poses(
    model: BaseModel, image, prompt: str, negative_prompt: str, width: int, height: int, num_frames: int,
    frame_rule: str, pose_colours: str, poses=None, pose_video=None, mask=None, fae: WeightedFAEs = (),
    acceleration: RunAcceleration | None = None, *, steps: int, cfg: float, scheduler: str, seed: int, **control,
):  # fmt: skip
    """Frames (num_frames, H, W, 3) in which the picture performs the poses, and the drawn poses, both in 0..1.

    Numbers that are 0 are the base's own.
    """
    from ..flexiact_core.dynamictrl.frames import plan_frames
    from ..flexiact_core.dynamictrl.pose_norm import check_takes_poses

    check_takes_poses(model.base.transformer)
    run = acceleration_of(model, acceleration).run
    own = complete_run(model, width=width, height=height, steps=steps, cfg=cfg)
    width, height, steps, cfg = (own[name] for name in ("width", "height", "steps", "cfg"))
    num_frames = count_frames(model, num_frames, frame_rule)
    plan = plan_frames(num_frames, frame_rule)
    _say_what_is_far(width, height)
    picture = _picture(model, image, mask, width, height)
    drawn = _drawn(plan, width, height, poses, pose_video, pose_colours)
    pose_posterior = encodings.encode_video(model, drawn)
    compute = _computing(
        model, pose_posterior, plan, fae, pose_control(control),
        num_frames=num_frames, steps=steps, cfg=cfg, scheduler=scheduler, seed=seed, acceleration=run,
    )  # fmt: skip
    frames = sample_video(
        model, model.transformer, picture, used_prompts(prompt, negative_prompt, cfg), compute,
        num_frames=num_frames, steps=steps, acceleration=run,
    )  # fmt: skip
    return plan.keep_frames(frames), drawn[plan.padding :]


def _say_what_is_far(width: int, height: int) -> None:
    from ..flexiact_core.cogvideox.family import DYNAMICTRL

    most = max(DYNAMICTRL.width_px, DYNAMICTRL.height_px)
    if max(width, height) > most:
        progress.say(
            f"{width}x{height}: no side was over {most} pixels in training. It takes longer, and may look odd."
        )


def _picture(model: BaseModel, image, mask, width: int, height: int):
    from ..flexiact_core.cogvideox.model import fit_picture
    from ..flexiact_core.dynamictrl.inputs import black_out

    with memory.normal_tensors():
        hidden = black_out(memory.ordinary(image), None if mask is None else memory.ordinary(mask))
    return fit_picture(model.base, hidden, "image", width, height)


def _drawn(plan, width: int, height: int, poses, pose_video, colours: str):
    from ..flexiact_core.dynamictrl.inputs import pose_frames, read_poses

    bar = progress.Progress(plan.num_poses)
    with memory.normal_tensors():
        joints = None if poses is None else read_poses(poses)
        video = None if pose_video is None else memory.ordinary(pose_video)
        return pose_frames(
            plan, width, height, poses=joints, video=video, colours=colours,
            on_frame=lambda frame: bar.step(frame + 1),
        )  # fmt: skip


def _computing(model: BaseModel, poses, plan, fae: WeightedFAEs, control, **settings):
    """The function that sample_video() calls for latents."""
    from ..flexiact_core.cogvideox.sampling import Run
    from ..flexiact_core.dynamictrl.animate import animate_picture
    from ..flexiact_core.flexiact.transfer import condition_on_actions

    def compute(posterior, *embeds, device, on_step):
        conditioned = None
        if fae or model.adapters:
            conditioned = condition_on_actions(model.base, device, faes=fae, adapters=model.adapters)
        run = Run(device=device, on_step=on_step, **settings)
        return plan.keep_latents(animate_picture(model.base, posterior, poses, *embeds, run, control, conditioned))

    return compute
