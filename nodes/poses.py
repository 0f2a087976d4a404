"""Poses of people: laid onto a picture's person, and drawn."""

from __future__ import annotations

from comfy_api.latest import io

from . import inputs
from .host import memory, progress
from .sockets import PosesSocket

PERSONS = ("largest", "leftmost", "all", *map(str, range(16)))
NO_RATE = "Poses bring no rate with them."


class AlignPose(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AlignPose",
            display_name="Align Pose",
            category="FlexiAct/poses",
            description=(
                "Lays the poses of a driving video onto the person of a picture, chooses who is meant, fills gaps, and "
                "brings them to the speed of the video to be made."
            ),
            search_aliases=["pose retarget", "openpose align", "dwpose", "pose transfer", "bone length", "dynamictrl"],
            inputs=[*cls._poses(), *cls._fit(), *cls._time(), *cls._out()],
            outputs=[
                PosesSocket.Output(
                    display_name="poses", tooltip="The poses on the new canvas, for Pose Transfer."
                ),
                io.Float.Output(display_name="fps", tooltip="How many of them are a second."),
            ],
        )

    @classmethod
    def _poses(cls):
        return [
            PosesSocket.Input(
                "driving", tooltip="Poses of the video to follow, as from SDPose Keypoint Extractor or DWPose."
            ),
            PosesSocket.Input(
                "reference",
                optional=True,
                tooltip=(
                    "Pose of the picture that is to move, found in the picture itself. Left open: the driving poses "
                    "are scaled to cover the size, and nobody is aligned."
                ),
            ),
            io.Float.Input(
                "driving_fps",
                default=16.0,
                min=0.5,
                max=240.0,
                step=0.01,
                tooltip=f"Frames a second of the driving video, from Get Video Components. {NO_RATE}",
            ),
        ]

    @classmethod
    def _fit(cls):
        return [
            inputs.any_side("width", 768),
            inputs.any_side("height", 1360),
            io.Combo.Input(
                "method",
                options=["release", "proportions", "none"],
                tooltip=(
                    "release: one scale and shift for all, as DynamiCtrl does. proportions: limbs as long as the "
                    "reference's, at the driving angles; for people of another build. none: only scaled to cover."
                ),
            ),
            io.Combo.Input(
                "person",
                options=list(PERSONS),
                tooltip=(
                    "Whose poses. largest: most visible over the clip. leftmost: furthest left. all: everybody, moved "
                    "alike. A number: in the order of the first frame, followed by the nearest place."
                ),
            ),
            io.Boolean.Input(
                "reference_first",
                default=True,
                tooltip=(
                    "On: the picture's own pose comes first, then the driving ones, as DynamiCtrl is used. Off: the "
                    "driving ones alone."
                ),
            ),
        ]

    @classmethod
    def _time(cls):
        return [
            io.Combo.Input(
                "missing",
                options=["hold", "interpolate", "empty"],
                tooltip=(
                    "Frames in which nobody was found. hold: the pose before. interpolate: a straight way to the next "
                    "one. empty: nobody."
                ),
            ),
            io.Float.Input(
                "smooth",
                default=0.0,
                min=0.0,
                max=10.0,
                step=0.1,
                tooltip="Jitter evened out over so many frames (standard deviation). 0: as found. 1: calm. High: soft.",
            ),
        ]

    @classmethod
    def _out(cls):
        return [
            io.Float.Input(
                "fps",
                default=16.0,
                min=1.0,
                max=60.0,
                step=0.5,
                advanced=True,
                tooltip="Poses a second to give. DynamiCtrl makes 16.",
            ),
            io.Int.Input(
                "num_frames",
                default=0,
                min=0,
                max=1029,
                advanced=True,
                tooltip="Poses to give: the first ones, or the last one held. 0: all there are.",
            ),
            io.Boolean.Input(
                "keep_scores",
                default=False,
                advanced=True,
                tooltip=(
                    "Off: joints have confidence 1, absent ones 0, which every pack reads. On: the detector's own, "
                    "which dim the drawing as in the release; some packs drop joints below 1."
                ),
            ),
        ]

    @classmethod
    def execute(
        cls, driving, driving_fps, width, height, person, fps, keep_scores, reference=None, **choices
    ) -> io.NodeOutput:
        from ..flexiact_core.poses.align import align_poses
        from ..flexiact_core.poses.keypoints import read_openpose, write_openpose

        with memory.normal_tensors():
            target = None if reference is None else read_openpose(reference, fps, "reference")
            person = int(person) if person.isdigit() else person
            poses = read_openpose(driving, driving_fps, "driving")
            aligned, note = align_poses(poses, target, width, height, person=person, fps=fps, **choices)
            if note:
                progress.say(note)
            return io.NodeOutput(write_openpose(aligned, keep_scores), aligned.fps)


class DrawPose(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DrawPose",
            display_name="Draw Pose",
            category="FlexiAct/poses",
            description="Draws poses as DynamiCtrl was trained on them, at any size, on black or over a picture.",
            search_aliases=["openpose render", "skeleton", "dwpose draw", "pose preview", "stick figure"],
            inputs=[
                PosesSocket.Input("poses", tooltip="Poses of any detector, of Align Pose or Render Avatars."),
                io.Image.Input(
                    "picture",
                    optional=True,
                    tooltip="One picture, or one for each pose, to draw over. Left open: black.",
                ),
                inputs.any_side("width", 0, "0: as wide as the poses' own canvas."),
                inputs.any_side("height", 0, "0: as high as the poses' own canvas."),
                io.Boolean.Input("body", default=True, tooltip="On: limbs and joints of the body."),
                io.Boolean.Input("hands", default=True, tooltip="On: fingers."),
                io.Boolean.Input("face", default=True, tooltip="On: points of the face."),
                io.Float.Input(
                    "stroke",
                    default=8.0,
                    min=0.5,
                    max=400.0,
                    step=0.5,
                    tooltip=(
                        "Width of a limb in 2160ths of the short side; joints follow it. 8: as trained. High: visible "
                        "in small pictures."
                    ),
                ),
                io.Float.Input(
                    "min_score",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip=(
                        "Confidence from which limbs of the body are drawn. 0: all. 0.3: as released. 1: sure ones."
                    ),
                ),
                io.Combo.Input(
                    "colours",
                    options=["dynamictrl", "openpose"],
                    advanced=True,
                    tooltip="dynamictrl: as trained, red and blue exchanged. openpose: as other packs draw.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The drawn poses, one a frame.")],
        )

    @classmethod
    def execute(cls, poses, width, height, picture=None, **look) -> io.NodeOutput:
        from ..flexiact_core.poses.draw import Look, draw_poses
        from ..flexiact_core.poses.keypoints import read_openpose
        from ..flexiact_core.video import check_frames

        with memory.normal_tensors():
            sequence = read_openpose(poses, 1.0)
            under = None if picture is None else check_frames(memory.ordinary(picture), "picture")
            bar = progress.Progress(sequence.num_frames)
            drawn = draw_poses(sequence, width, height, Look(**look), under, lambda frame: bar.step(frame + 1))
            return io.NodeOutput(drawn)
