"""Avatars: people placed in a scene, and a film of it through a camera, with their poses."""

from __future__ import annotations

from comfy_api.latest import io

from .host import media, memory
from .host.progress import Progress, say
from .sockets import AvatarSceneSocket, PosesSocket

# As in flexiact_core.avatars.shipped and .camera, which are not loaded for a list.
PEOPLE = ("man", "woman")
MOVES = ("still", "orbit", "dolly", "truck", "crane", "zoom")


def _number(name: str, default: float, low: float, high: float, step: float, tooltip: str, advanced: bool = False):
    return io.Float.Input(
        name, default=default, min=low, max=high, step=step, tooltip=tooltip, advanced=advanced or None
    )


class PlaceAvatar(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PlaceAvatar",
            display_name="Place Avatar",
            category="FlexiAct/avatars",
            description=(
                "Puts a person into a scene: one of two that ship with the pack, or any skinned glTF or GLB model, "
                "doing one of its clips. Chain several for several people."
            ),
            search_aliases=["3d avatar", "gltf animation", "glb", "character", "mixamo", "puppet", "amg"],
            inputs=[*cls._model_inputs(), *cls._place_inputs(), *cls._time_inputs()],
            outputs=[
                AvatarSceneSocket.Output(
                    display_name="scene", tooltip="The scene with this person in it, for Render Avatars or the next."
                ),
            ],
        )

    @classmethod
    def _model_inputs(cls):
        return [
            AvatarSceneSocket.Input(
                "scene", optional=True, tooltip="The people placed so far. Open: this is the first of the scene."
            ),
            io.MultiType.Input(
                "model_3d",
                types=[io.File3DAny, io.File3DGLB, io.File3DGLTF],
                optional=True,
                tooltip=(
                    "A .glb or .gltf model with a skin and clips, as from Load 3D. Without a skin it is drawn rigid, "
                    "without clips at rest. Open: the person chosen below."
                ),
            ),
            io.Load3DModelInfo.Input(
                "model_3d_info",
                optional=True,
                tooltip="Where the 3D viewer shows the model, so that its camera fits. It takes the place of fit.",
            ),
            io.Combo.Input(
                "person",
                options=list(PEOPLE),
                tooltip="Who ships with the pack (CC0). man: blue shirt, grey trousers. woman: yellow dress.",
            ),
            io.String.Input(
                "clip",
                default="",
                tooltip=(
                    "Name of the clip. man and woman have walk, wave, jump, sit, turn, dance. Empty: the model's first."
                ),
            ),
        ]

    @classmethod
    def _place_inputs(cls):
        return [
            _number("x", 0.0, -50, 50, 0.05, "Metres to the right of the scene's middle, as seen from the front."),
            _number("z", 0.0, -50, 50, 0.05, "Metres towards the viewer from the scene's middle."),
            _number("turn", 0.0, -180, 180, 1, "Degrees. 0 faces the viewer, 90 the right edge, 180 away."),
            _number("scale", 1.0, 0.01, 100, 0.01, "Size, times what fit gives: 0.5 is half as tall, 2 twice."),
            io.Boolean.Input(
                "fit",
                default=True,
                tooltip=(
                    "On: 1.7 m tall, feet on the ground, in the middle; for models in centimetres or on their back. "
                    "Off: as the file has it, in metres."
                ),
            ),
        ]

    @classmethod
    def _time_inputs(cls):
        return [
            _number("start", 0.0, 0, 600, 0.05, "Seconds into the clip at the first frame."),
            _number(
                "speed", 1.0, 0.1, 4, 0.05, "0.1 is ten times slower, 1 the clip's own speed, 4 four times faster."
            ),
            io.Combo.Input(
                "after",
                options=["loop", "hold"],
                tooltip="After the clip's end. loop: from its beginning again. hold: its last pose stays.",
            ),
            io.Color.Input("tint", default="#ffffff", tooltip="Multiplies all colours. White leaves them as they are."),
        ]

    @classmethod
    def execute(
        cls, person, clip, x, z, turn, scale, fit, start, speed, after, tint, scene=None, model_3d=None,
        model_3d_info=None,
    ) -> io.NodeOutput:  # fmt: skip
        from ..flexiact_core.avatars.colours import hex_colour
        from ..flexiact_core.avatars.scene import Scene, place_avatar
        from ..flexiact_core.avatars.shipped import shipped_avatar

        avatar = shipped_avatar(person) if model_3d is None else media.read_avatar(model_3d)
        placement = place_avatar(
            avatar, clip=clip, x=x, z=z, turn=turn, scale=scale, fit=fit, viewer=model_3d_info, start=start,
            speed=speed, loop=after == "loop", tint=hex_colour(tint, "tint"),
        )  # fmt: skip
        return io.NodeOutput((scene or Scene()).with_avatar(placement))


class RenderAvatars(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RenderAvatars",
            display_name="Render Avatars",
            category="FlexiAct/avatars",
            description=(
                "Films a scene of avatars through a still or moving camera: frames on a plain background, as AMG takes "
                "them, their mask, and the people's poses, so that one animation drives DynamiCtrl too."
            ),
            search_aliases=["3d render", "avatar video", "camera move", "openpose from 3d", "turntable", "amg"],
            inputs=[*cls._camera_inputs(), *cls._picture_inputs()],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The film, one picture a frame."),
                io.Mask.Output(display_name="mask", tooltip="Where people are: 1 covered, 0 background, soft edges."),
                PosesSocket.Output(
                    display_name="poses",
                    tooltip=(
                        "OpenPose joints of every person, by the names of bones; what is hidden from a detector (face "
                        "from behind, outside the picture) is absent. Models without a human skeleton have none."
                    ),
                ),
                io.Float.Output(display_name="fps", tooltip="Frames a second, as set: for Create Video and samplers."),
                io.Load3DCamera.Output(
                    display_name="camera_info",
                    tooltip="The camera of the last frame: for the next shot, Render Splat or Preview 3D.",
                ),
            ],
        )

    @classmethod
    def _camera_inputs(cls):
        return [
            AvatarSceneSocket.Input("scene", tooltip="The people, from Place Avatar."),
            io.Load3DCamera.Input(
                "camera_info",
                optional=True,
                tooltip=(
                    "The camera of the first frame, from Load 3D or Create Camera Info. Open: one in front that shows "
                    "all people over all frames."
                ),
            ),
            io.Combo.Input(
                "move",
                options=list(MOVES),
                tooltip=(
                    "How the camera moves, evenly, from the first to the last frame. still: not. orbit: around the "
                    "target. dolly: along the view. truck: to its right. crane: up. zoom: things grow."
                ),
            ),
            _number(
                "amount", 0.0, -360, 360, 0.05,
                "How far in all. orbit: degrees to the right. dolly, truck, crane: metres, negative the other way. "
                "zoom: the factor at the end, over 0; 2 is twice as large.",
            ),
            io.Int.Input(
                "num_frames", default=16, min=1, max=240, tooltip="Frames to draw. AMG was trained on 16."
            ),
            _number("fps", 8.0, 1, 60, 0.5, "Frames a second of the clips' time. AMG was trained on 8."),
        ]  # fmt: skip

    @classmethod
    def _picture_inputs(cls):
        sides = [
            io.Int.Input(name, default=256, min=64, max=2048, step=8, tooltip=f"{name.capitalize()} in pixels.")
            for name in ("width", "height")
        ]
        return [
            *sides,
            io.Int.Input(
                "antialias",
                default=2,
                min=1,
                max=4,
                tooltip="Samples a pixel, along each side. 1: hard edges. 2: soft. 4: softer, and slower.",
            ),
            io.Color.Input(
                "background", default="#000000", tooltip="Behind the people. AMG learned them on black."
            ),
            _number("light", 0.6, 0, 1, 0.05, "0 shows plain colours, 1 the full shading of a light from above."),
        ]  # fmt: skip

    @classmethod
    def execute(
        cls, scene, move, amount, num_frames, fps, width, height, antialias, background, light, camera_info=None
    ) -> io.NodeOutput:
        from ..flexiact_core.avatars.camera import camera_from_dict
        from ..flexiact_core.avatars.colours import hex_colour
        from ..flexiact_core.avatars.scene import render_scene
        from ..flexiact_core.poses.keypoints import write_openpose

        progress = Progress(num_frames)
        film = render_scene(
            scene, camera=camera_from_dict(camera_info) if camera_info else None, move=move, amount=amount,
            num_frames=num_frames, fps=fps, width=width, height=height, antialias=antialias, light=light,
            background=hex_colour(background, "background"), device=memory.drawing_device(),
            on_step=lambda frame, picture: progress.step(frame + 1, picture),
        )  # fmt: skip
        if film.notes:
            say("\n".join(film.notes))
        poses, last = write_openpose(film.poses), film.cameras[-1].to_dict(width, height)
        return io.NodeOutput(film.frames, film.masks, poses, float(fps), last)
