"""ACT-VAE's nodes: its files, an action's name that becomes poses, and their measures."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import inputs
from .host import folders, memory, progress
from .sockets import ActVaeSocket, PosesSocket

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ..flexiact_core.act_vae.loading import ACTVAE

MODELS = folders.ModelFolder("act_vae", released="the authors' archive, named at github.com/xiaogang00/ACT-VAE")
CATEGORY = "FlexiAct/poses"
PEOPLE = ("largest", "leftmost", *map(str, range(16)))


@dataclass(frozen=True, eq=False)
class LoadedACTVAE:
    """What flows through ACT_VAE: the model, and ComfyUI's owner of P2I's memory where the files hold one."""

    model: ACTVAE
    painter: ModelPatcher | None = None


def to_socket(model: ACTVAE) -> LoadedACTVAE:
    """A model as it flows through ACT_VAE."""
    if model.generator is None:
        return LoadedACTVAE(model)
    import comfy.model_management as management

    devices = management.get_torch_device(), management.unet_offload_device()
    return LoadedACTVAE(model, memory.to_patcher(model.generator, *devices))


def find_models() -> dict[str, Path]:
    """The files and folders of models/act_vae that can be loaded, by name; what ships with the pack last."""
    from ..flexiact_core.act_vae.loading import find_models

    return dict(ChainMap(*map(find_models, MODELS.roots())))


def action_input(tooltip: str):
    """A choice of the actions of every model that is there; another one may come over a link or in a saved graph."""
    from ..flexiact_core.act_vae.loading import known_actions

    return io.Combo.Input("action", options=known_actions(find_models().values()), tooltip=tooltip)


class LoadACTVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadACTVAE",
            display_name="Load ACT-VAE",
            category=CATEGORY,
            description=(
                "Loads a model that knows how poses go on in an action. A small one comes with the pack; the authors' "
                "files and what Train ACT-VAE makes lie in models/act_vae."
            ),
            search_aliases=["act-vae", "action to pose", "pose prediction", "motion from text"],
            inputs=[
                inputs.file_list(
                    "model",
                    find_models(),
                    "A file or folder in models/act_vae. figures.safetensors: shipped, nine everyday actions. A folder "
                    "with the authors' im_encode_content.pt, im_encode_vae.pt and generator.pt: nine sports.",
                ),
            ],
            outputs=[ActVaeSocket.Output(display_name="act_vae", tooltip="The model, with all that its files hold.")],
        )

    @classmethod
    def validate_inputs(cls, model):
        return folders.check_listed(model, find_models(), MODELS.missing(model))

    @classmethod
    def fingerprint_inputs(cls, model=None, **_):
        return folders.files_state(find_models().get(model))

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        from ..flexiact_core.act_vae.loading import load_act_vae

        path = folders.path_of(model, find_models(), MODELS.missing(model))
        with memory.normal_tensors():
            return io.NodeOutput(to_socket(load_act_vae(path)))


class PredictActionPoses(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PredictActionPoses",
            display_name="Predict Action Poses",
            category=CATEGORY,
            description=(
                "From one pose and an action's name, the poses that follow. No video shows the action: the model "
                "learned it. Each variant is another course of it."
            ),
            search_aliases=["action poses", "pose sequence", "word to motion", "act-vae sample", "pose generator"],
            inputs=[
                ActVaeSocket.Input("act_vae", tooltip="The model, from Load ACT-VAE."),
                action_input(
                    "What the person does. The first nine belong to the shipped model, the others to the authors' "
                    "files or your own; another model's action is refused with a list."
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=64,
                    tooltip=(
                        "Poses after the first. 0: as many as the model was trained for, 4 for the authors' files, 8 "
                        "for the shipped one. More are the model's own guess."
                    ),
                ),
                io.Boolean.Input(
                    "chain",
                    default=False,
                    tooltip=(
                        "Off: all steps in one go. On: windows of as many steps as were trained, each from the last "
                        "pose of the one before, for longer clips."
                    ),
                ),
                io.Int.Input(
                    "variants",
                    default=1,
                    min=1,
                    max=16,
                    tooltip="How many courses of the action, each its own seed: seed, seed + 1, and so on.",
                ),
                io.Float.Input(
                    "temperature",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Size of the random numbers. 0: always the same course. 1: the released way. 2: wild.",
                ),
                io.Int.Input(
                    "num_frames",
                    default=0,
                    min=0,
                    max=1029,
                    tooltip=(
                        "Frames that the poses are spread over, on a smooth curve. 0: as predicted, the first pose and "
                        "one for each step. DynamiCtrl takes 8k+5: 13, 21, ..."
                    ),
                ),
                io.Float.Input(
                    "fps",
                    default=8.0,
                    min=1.0,
                    max=60.0,
                    step=0.5,
                    tooltip="Frames per second of the result. The model knows no time: low plays slowly, high fast.",
                ),
                io.Combo.Input(
                    "person",
                    options=list(PEOPLE),
                    default="largest",
                    tooltip="Who of several people in the pose. largest: the tallest; a number counts from 0.",
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=64,
                    max=4096,
                    tooltip="Width in pixels of the canvas where no pose is connected.",
                ),
                io.Int.Input(
                    "height",
                    default=512,
                    min=64,
                    max=4096,
                    tooltip="Height in pixels of the canvas where no pose is connected.",
                ),
                inputs.seed("Fixes the courses: the same graph and seed give the same poses."),
                PosesSocket.Input(
                    "pose",
                    optional=True,
                    tooltip="The pose to start from; the first frame counts. Left open: a standing figure.",
                ),
            ],  # fmt: skip
            outputs=[
                PosesSocket.Output(
                    display_name="poses", is_output_list=True, tooltip="The poses, one clip for each variant."
                ),
                io.Image.Output(
                    display_name="frames", is_output_list=True, tooltip="The poses drawn, one clip for each variant."
                ),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the clips."),
                io.Image.Output(display_name="strips", tooltip="A few frames of each variant, a row each."),
                io.String.Output(display_name="text", tooltip="What was done, and what was odd about the pose."),
            ],
        )

    @classmethod
    def validate_inputs(cls, action):
        # Models that came after the list was read have actions of their own; the model itself says what it has.
        return True

    @classmethod
    def execute(cls, act_vae: LoadedACTVAE, action, person, width, height, fps, pose=None, **how) -> io.NodeOutput:
        from ..flexiact_core.act_vae.predict import HowTo, predict_poses
        from ..flexiact_core.act_vae.render import draw_variants
        from ..flexiact_core.act_vae.source import read_source
        from ..flexiact_core.poses.keypoints import write_openpose

        with memory.normal_tensors():
            source = read_source(pose, person, (width, height))
            made = predict_poses(act_vae.model, source, action, HowTo(fps=fps, **how))
            frames, strips = draw_variants(made.variants)
        text = "\n".join(made.notes)
        progress.say(text)
        return io.NodeOutput([write_openpose(clip) for clip in made.variants], frames, fps, strips, text)


class MeasurePoses(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MeasurePoses",
            display_name="Measure Poses",
            category=CATEGORY,
            description=(
                "Measures a model's poses against true ones, always beside standing still and beside another action's "
                "name: where the first pose alone names the action, an error or an accuracy says nothing without them."
            ),
            search_aliases=["pose error", "action accuracy", "act-vae evaluate", "frechet", "diversity"],
            inputs=[
                ActVaeSocket.Input("act_vae", tooltip="The model that is measured."),
                action_input("The action that the truth shows. Not used where the truth is left open."),
                inputs.seed("Fixes the draws.", new_each_run=False),
                PosesSocket.Input(
                    "truth",
                    optional=True,
                    tooltip=(
                        "True poses: every stretch as long as the model's steps is a clip. Left open: 512 figures that "
                        "no training saw, for models of the built-in actions."
                    ),
                ),
                PosesSocket.Input(
                    "poses",
                    optional=True,
                    tooltip=(
                        "Poses to measure against the truth in place of the model's own, such as all variants of "
                        "Predict Action Poses. Left open: ten draws of the model for each clip."
                    ),
                ),
            ],  # fmt: skip
            outputs=[
                io.Float.Output(display_name="error", tooltip="Mean distance of a joint, in pixels of 128. 0: exact."),
                io.Float.Output(display_name="best", tooltip="The same for the best draw of each clip."),
                io.String.Output(display_name="nearest", tooltip="The action that is seen most often."),
                io.String.Output(display_name="text", tooltip="All measures, each beside its controls."),
                io.Image.Output(
                    display_name="picture", tooltip="One clip: true, made, another action's name; a row each."
                ),
            ],
            is_input_list=True,
        )

    @classmethod
    def validate_inputs(cls, action):
        return True

    @classmethod
    def execute(cls, act_vae, action, seed, truth=(), poses=()) -> io.NodeOutput:
        from ..flexiact_core.act_vae.report import measure_clips, take_clips, take_variants
        from ..flexiact_core.poses.keypoints import read_openpose

        model, name = act_vae[0].model, action[0]
        with memory.normal_tensors():
            clips = take_clips(model, [read_openpose(clip, 1.0, "truth") for clip in truth], name)
            variants = take_variants(clips, [read_openpose(clip, 1.0, "poses") for clip in poses])
            report = measure_clips(model, clips, variants, seed[0])
        progress.say(report.text)
        return io.NodeOutput(report.error, report.best, report.nearest, report.text, report.picture)
