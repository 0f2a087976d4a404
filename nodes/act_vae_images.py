"""ACT-VAE's nodes of pictures: a person drawn again in other poses, and the authors' test of a row of their list."""

from __future__ import annotations

from comfy_api.latest import io

from . import inputs
from .act_vae import CATEGORY, LoadedACTVAE, action_input
from .host import folders, media, memory, progress
from .sockets import ActVaeSocket, PosesSocket

IN_A_FOLDER = "in ComfyUI's input folder or in a model folder."
# P2I's widest layer at 128 px, for a few pictures at once.
PAINTER_BYTES = 600_000_000


class PoseToImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PoseToImage",
            display_name="Pose to Image",
            category=CATEGORY,
            description=(
                "Draws the person of a picture again in each pose, as a thumbnail of 128x128 pixels, with ACT-VAE's "
                "pose-to-image network. It needs the authors' generator.pt, or one that you trained."
            ),
            search_aliases=["p2i", "pose transfer", "act-vae image", "pose thumbnail"],
            inputs=[
                ActVaeSocket.Input("act_vae", tooltip="A model whose files hold a pose-to-image network."),
                io.Image.Input(
                    "image", tooltip="One picture of the person; of several the first is taken, transparency left out."
                ),
                PosesSocket.Input("source_pose", tooltip="The pose of the person in the picture; the first frame."),
                PosesSocket.Input("poses", tooltip="The poses to draw, from Predict Action Poses, of the same canvas."),
                action_input("The action that the poses belong to: the network has learned it as a part of the look."),
                io.Float.Input(
                    "fps", default=8.0, min=1.0, max=60.0, step=0.5, tooltip="Frames per second of the video."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="A frame of 128x128 pixels for each pose."),
                io.Video.Output(display_name="video", tooltip="The frames as a video."),
            ],
        )

    @classmethod
    def validate_inputs(cls, action):
        return True

    @classmethod
    def execute(cls, act_vae: LoadedACTVAE, image, source_pose, poses, action, fps) -> io.NodeOutput:
        from ..flexiact_core.act_vae.render import check_painter, picture_notes, render_poses
        from ..flexiact_core.act_vae.source import read_source
        from ..flexiact_core.poses.keypoints import read_openpose

        check_painter(act_vae.model)
        source, wanted = read_source(source_pose), read_openpose(poses, fps)
        if notes := picture_notes(image, source):
            progress.say("\n".join(notes))
        report = progress.Progress(wanted.num_frames)
        with memory.on_device(act_vae.painter, PAINTER_BYTES) as device:
            frames = render_poses(act_vae.model, image.clone(), source, wanted, action, device, report.step)
        return io.NodeOutput(frames, media.to_video(frames, fps))


class CompareACTVAERow(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CompareACTVAERow",
            display_name="Compare ACT-VAE Row",
            category=CATEGORY,
            description=(
                "The authors' test of one line of their list: true pictures, predicted poses and generated pictures, a "
                "row each. It needs their list, Penn Action's pictures and a pose-to-image network."
            ),
            search_aliases=["act-vae test", "testing_pair_penn5", "penn action"],
            inputs=[
                ActVaeSocket.Input("act_vae", tooltip="A model whose files hold a pose-to-image network."),
                io.String.Input(
                    "list_file", default="testing_pair_penn5.txt", tooltip="The authors' list, " + IN_A_FOLDER
                ),
                io.String.Input(
                    "pictures_folder", default="frames", tooltip="The folder that holds NNNN/NNNNNN.jpg, " + IN_A_FOLDER
                ),
                io.Int.Input("row", default=1, min=1, max=1000000, tooltip="Line of the list, from 1."),
                inputs.seed("Fixes the course of the action."),
            ],  # fmt: skip
            outputs=[io.Image.Output(display_name="picture", tooltip="Three rows: true, predicted, generated.")],
        )

    @classmethod
    def fingerprint_inputs(cls, list_file=None, **_):
        return folders.input_state(list_file)

    @classmethod
    def execute(cls, act_vae: LoadedACTVAE, list_file, pictures_folder, row, seed) -> io.NodeOutput:
        from ..flexiact_core.act_vae.render import check_painter, compare_row, read_test_row

        check_painter(act_vae.model)
        clip = read_test_row(folders.input_path(list_file), folders.input_path(pictures_folder), row)
        with memory.on_device(act_vae.painter, PAINTER_BYTES) as device:
            return io.NodeOutput(compare_row(act_vae.model, clip, seed, device))
