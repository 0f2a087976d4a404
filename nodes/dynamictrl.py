"""DynamiCtrl's node: a picture performs poses."""

from __future__ import annotations

from comfy_api.latest import io

from ..flexiact_core.cogvideox.family import DYNAMICTRL as RELEASED
from . import inputs
from .cogvideox import BASES
from .dynamictrl_sampling import check_inputs, count_frames, perform_poses
from .host import media
from .sockets import BaseModel, FAESocket, PosesSocket
from .training import not_computed

DOWNLOAD = BASES.command(name="DynamiCtrl")

TRAINED = f"DynamiCtrl was trained at {RELEASED.width_px}x{RELEASED.height_px}, Mask C01 at 576x1024."


class DynamiCtrlSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DynamiCtrlSampler",
            display_name="Pose Transfer, Dance (DynamiCtrl)",
            category="FlexiAct",
            description=(
                "Makes a video in which the person of the picture performs the poses of a driving video. Needs "
                "DynamiCtrl's weights."
            ),
            search_aliases=["dynamictrl", "pose driven", "animate anyone", "human animation", "pose to video", "dance"],
            inputs=[*cls._given(), *cls._given_besides(), *cls._asked(), *cls._poses_act(), *cls._advanced()],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The frames, as many as asked for."),
                io.Video.Output(
                    display_name="video", tooltip="The same at 16 frames per second, with the driving video's sound."
                ),
                io.Image.Output(display_name="drawn_poses", tooltip="The poses as the model saw them."),
            ],
        )

    @classmethod
    def _given(cls):
        return [
            inputs.model(f"DynamiCtrl from Load CogVideoX I2V. To fetch it: {DOWNLOAD}", lazy=True),
            io.Image.Input(
                "image",
                lazy=True,
                tooltip="One picture of the person. It is scaled to cover the size and cut at the centre.",
            ),
            PosesSocket.Input(
                "poses",
                optional=True,
                lazy=True,
                tooltip=(
                    "Joints, one pose for each frame at 16 a second, as from Align Pose. The last one is held where "
                    "there are too few. Connect this or pose_video."
                ),
            ),
            io.Image.Input(
                "pose_video",
                optional=True,
                lazy=True,
                tooltip="Poses drawn already, one picture for each frame. Connect this or poses.",
            ),
        ]

    @classmethod
    def _given_besides(cls):
        return [
            io.Mask.Input(
                "mask",
                optional=True,
                lazy=True,
                tooltip=(
                    "White is blacked out in the picture, for the models trained on it: the background for Mask B01, "
                    "the clothes for Mask C01; the prompt says what comes there."
                ),
            ),
            io.Video.Input(
                "driving_video",
                optional=True,
                lazy=True,
                tooltip="The driving video, for its sound alone: it goes into the result, cut to the frames' length.",
            ),
            FAESocket.Input(
                "fae",
                optional=True,
                lazy=True,
                tooltip=(
                    "An action, trained on CogVideoX 1.5, that acts together with the poses, such as one of the camera."
                ),
            ),
        ]

    @classmethod
    def _asked(cls):
        return [
            inputs.prompt(),
            inputs.negative_prompt(),
            inputs.side("width", TRAINED),
            inputs.side("height", TRAINED),
            inputs.num_frames(
                "Frames at 16 per second, 8k+5: 37, as trained, are a little over two seconds. 0: as many as the base "
                "was trained on. More take longer and more memory. 8k+1 with frame_rule padded.",
                RELEASED.frames_per_latent,
                1029,
            ),
            inputs.sampling_steps(RELEASED.steps),
            inputs.cfg(released=RELEASED.cfg),
            inputs.seed(),
            inputs.scheduler(),
        ]

    @classmethod
    def _poses_act(cls):
        return [
            io.Float.Input(
                "pose_strength",
                default=1.0,
                min=0.0,
                max=2.0,
                step=0.05,
                tooltip=(
                    "A factor on what the poses add. 1: as trained. 0: nothing, which the weights were never trained "
                    "for. 2: twice."
                ),
            ),
            io.Float.Input(
                "pose_start",
                default=0.0,
                min=0.0,
                max=100.0,
                step=1.0,
                tooltip=(
                    "Percent of the steps after which poses act. 0: from the first. Late: the prompt lays out first."
                ),
            ),
            io.Float.Input(
                "pose_end",
                default=100.0,
                min=0.0,
                max=100.0,
                step=1.0,
                tooltip="Percent of the steps before which poses act. 100: to the last. Low: details are left free.",
            ),
        ]

    @classmethod
    def _advanced(cls):
        return [
            io.Combo.Input(
                "frame_rule",
                options=["aligned", "release", "padded"],
                advanced=True,
                tooltip=(
                    "The VAE gives three frames more than there are poses. aligned: those in front are left out, so "
                    "that frames and poses match. release: those at the end, as the released script does. padded: "
                    "8k+1 frames."
                ),
            ),
            io.Combo.Input(
                "image_scale",
                options=["release", "training"],
                advanced=True,
                tooltip=(
                    "How the picture's latents are scaled. release: as the released pipeline. training: as its "
                    "training, weaker by 0.7 where the VAE says invert_scale_latents."
                ),
            ),
            io.Combo.Input(
                "pose_colours",
                options=["dynamictrl", "openpose"],
                advanced=True,
                tooltip=(
                    "What pose_video is drawn in. dynamictrl: by Draw Pose or the release. openpose: by other packs; "
                    "red and blue are exchanged."
                ),
            ),
            inputs.acceleration(),
        ]

    @classmethod
    def check_lazy_status(cls, width, height, num_frames, frame_rule, **asked):
        waiting = not_computed({name: asked[name] for name in LAZY if name in asked})
        check_inputs(width, height, num_frames, frame_rule, asked, waiting)
        # The base comes last: poses that cannot be used are told of before it is loaded.
        return [name for name in waiting if name != "model"] or waiting

    @classmethod
    def execute(cls, model: BaseModel, driving_video=None, **asked) -> io.NodeOutput:
        fps, num_frames = model.base.family.fps, count_frames(model, asked["num_frames"], asked["frame_rule"])
        # Before the long run, so that a file that cannot be read does not cost it.
        sound = None if driving_video is None else media.sound_of(driving_video, num_frames / fps)
        frames, drawn = perform_poses(model, **asked)
        return io.NodeOutput(frames, media.to_video(frames, fps, sound), drawn)


LAZY = ("model", "image", "poses", "pose_video", "mask", "driving_video", "fae")
