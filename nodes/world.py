"""The small world's nodes: example inputs, and the measure of what came out."""

from __future__ import annotations

from comfy_api.latest import io

from .host import media, memory
from .sockets import ExampleSocket, PersonSocket, PosesSocket, TakeSocket


class LoadExampleAction(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from ..flexiact_core.world.actions import ACTIONS

        return io.Schema(
            node_id="LoadExampleAction",
            display_name="Load Example Action",
            category="FlexiAct/small world",
            description=(
                "Example inputs from the small world that ships with the pack: a target picture, a reference clip of "
                "another subject that shows an action, and their captions. Nothing has to be downloaded."
            ),
            search_aliases=["flexiact example", "demo inputs", "small world", "example clip"],
            inputs=[
                io.Int.Input(
                    "target",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip=(
                        "Which target: each number is another subject and background. None of them was seen in "
                        "training of the base."
                    ),
                ),
                io.Combo.Input(
                    "action",
                    options=list(ACTIONS),
                    tooltip="What the reference clip shows, and what is measured. "
                    + " ".join(f"{action.name}: {action.about}." for action in ACTIONS.values()),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The target picture, 64x64 pixels."),
                io.String.Output(display_name="prompt", tooltip="What the target shows; the action is not named."),
                io.Video.Output(
                    display_name="reference", tooltip="The clip that shows the action: 17 frames at 8 per second."
                ),
                io.String.Output(display_name="caption", tooltip="What the clip shows; the action is not named."),
                ExampleSocket.Output(
                    display_name="example", tooltip="The truth about target and action, for Measure Action."
                ),
            ],
        )

    @classmethod
    def execute(cls, target, action) -> io.NodeOutput:
        import torch

        from ..flexiact_core.world.shipped import FPS, example

        inputs = example(action, target)
        image = torch.from_numpy(inputs.image)[None]
        video = media.to_video(torch.from_numpy(inputs.reference), FPS)
        return io.NodeOutput(image, inputs.caption, video, inputs.reference_caption, (inputs.target, action))


class MeasureAction(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MeasureAction",
            display_name="Measure Action",
            category="FlexiAct/small world",
            description=(
                "Measures how well a video of the small world shows its action and keeps its subject, against the true "
                "video, and draws it."
            ),
            search_aliases=["flexiact evaluate", "action fidelity", "motion fidelity", "trajectory"],
            inputs=[
                io.Image.Input("frames", tooltip="17 frames of 64x64 pixels, made from the example's target picture."),
                ExampleSocket.Input("example", tooltip="The truth, from Load Example Action."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="picture", tooltip="True video, measured video, and both motions over the seconds."
                ),
                io.Float.Output(display_name="slope", tooltip="Share of the true motion. 0: none of it. 1: all of it."),
                io.String.Output(display_name="nearest", tooltip="The action whose true video moves most alike."),
                io.Float.Output(
                    display_name="identity",
                    tooltip=(
                        "How much of the subject is there, by its edges. 0: no more than in a blur. 1: all; the true "
                        "video through the VAE has about 0.7."
                    ),
                ),
                io.String.Output(display_name="subject", tooltip="The identity in words: whole, changed or lost."),
                io.Float.Output(
                    display_name="score",
                    tooltip="Action and subject in one number. 0: one of them is missing. 1: both are as they should.",
                ),
            ],
        )

    @classmethod
    def execute(cls, frames, example) -> io.NodeOutput:
        from ..flexiact_core.world.measure import score
        from ..flexiact_core.world.picture import draw_measure

        scene, action = example
        picture, motion, subject = draw_measure(memory.ordinary(frames).cpu(), scene, action)
        return io.NodeOutput(
            picture, motion.slope, motion.nearest, subject.likeness, subject.words, score(motion, subject)
        )


class LoadExamplePerson(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from ..flexiact_core.act_vae.figures import ACTIONS
        from ..flexiact_core.world.bodies import KINDS, PERSON

        return io.Schema(
            node_id="LoadExamplePerson",
            display_name="Load Example Person",
            category="FlexiAct/small world",
            description=(
                "Example inputs for the small people that ship with the pack: a picture of a person, and poses of that "
                "person in an action, to drive the picture with. Nothing has to be downloaded."
            ),
            search_aliases=["dynamictrl example", "demo poses", "small people", "example person"],
            inputs=[
                io.Int.Input(
                    "person",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip=(
                        "Which person: each number is another body, clothes and background. None of them was seen in "
                        "training of the base."
                    ),
                ),
                io.Combo.Input(
                    "action",
                    options=list(ACTIONS),
                    tooltip="What the poses show. Each begins at rest, as the person stands in the picture.",
                ),
                io.Combo.Input(
                    "body",
                    options=list(KINDS),
                    default=PERSON,
                    optional=True,
                    tooltip=(
                        "Whose body: a person's, or a dog's or a bird's, which does with forelegs or wings what a "
                        "person does with the arms."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The person at rest, 64x64 pixels."),
                io.String.Output(display_name="prompt", tooltip="Who is seen and where; the action is not named."),
                PosesSocket.Output(
                    display_name="poses", tooltip="The person's 13 joints in the action: 21 poses at 16 per second."
                ),
                io.Image.Output(
                    display_name="pose_video",
                    tooltip="The same drawn as the small people's base takes them, for Pose Transfer.",
                ),
                PersonSocket.Output(
                    display_name="example", tooltip="The truth about person and action, for Measure Person."
                ),
            ],
        )

    @classmethod
    def execute(cls, person, action, body="person") -> io.NodeOutput:
        from ..flexiact_core.poses.keypoints import write_openpose
        from ..flexiact_core.world.actor_cases import driving, example_case, picture_of
        from ..flexiact_core.world.actors import actor_caption, poses_of

        with memory.normal_tensors():
            case = example_case(person, action, body)
            poses = write_openpose(poses_of(case.actor, case.performance))
            return io.NodeOutput(picture_of(case.actor), actor_caption(case.actor), poses, driving(case), case)


class MeasurePerson(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MeasurePerson",
            display_name="Measure Person",
            category="FlexiAct/small world",
            description=(
                "Measures how well a video of one of the small people follows its poses, against the true video, and "
                "draws it. Head, hands and feet are found by their colours."
            ),
            search_aliases=["dynamictrl evaluate", "pose fidelity", "pck", "small people"],
            inputs=[
                io.Image.Input("frames", tooltip="21 frames of 64x64 pixels, made from the example's picture."),
                PersonSocket.Input("example", tooltip="The truth, from Load Example Person."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="picture",
                    tooltip="Poses, true video, measured video, and how far each joint is from its place.",
                ),
                io.Float.Output(
                    display_name="near",
                    tooltip="Share of the joints within a tenth of the body's height of their place. 0: none. 1: all.",
                ),
                io.Float.Output(
                    display_name="slope", tooltip="Share of the true motion of the limbs. 0: none of it. 1: all of it."
                ),
                io.String.Output(display_name="nearest", tooltip="The action whose true video moves most alike."),
            ],
        )

    @classmethod
    def execute(cls, frames, example) -> io.NodeOutput:
        from ..flexiact_core.world.actor_picture import draw_actor_measure

        with memory.normal_tensors():
            picture, seen = draw_actor_measure(memory.ordinary(frames).cpu(), example)
        return io.NodeOutput(picture, seen.follow, seen.limbs, seen.nearest)


class LoadExampleAvatar(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from ..flexiact_core.act_vae.figures import ACTIONS
        from ..flexiact_core.world.takes import CAMERAS, TAKE_FPS, TAKE_FRAMES

        return io.Schema(
            node_id="LoadExampleAvatar",
            display_name="Load Example Avatar",
            category="FlexiAct/small world",
            description=(
                "Example inputs for the small AMG that ships with the pack: a gray puppet that does an action before a "
                "camera, and the words for the person and the scene to make of it. Nothing has to be downloaded."
            ),
            search_aliases=["amg example", "demo avatar", "puppet", "example camera"],
            inputs=[
                io.Int.Input(
                    "person",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip=(
                        "Which person: each number is another body, clothes and scene. None of them was seen in "
                        "training of the model."
                    ),
                ),
                io.Combo.Input("action", options=list(ACTIONS), tooltip="What the puppet does."),
                io.Combo.Input(
                    "camera",
                    options=list(CAMERAS),
                    tooltip=(
                        "How the camera moves. right, left: it pans, and the puppet goes the other way. in, out: it "
                        "zooms. around: it goes a quarter of the way around the puppet."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="avatar",
                    tooltip=f"The gray puppet on black: {TAKE_FRAMES} frames of 64x64 pixels, {TAKE_FPS} per second.",
                ),
                io.String.Output(
                    display_name="prompt", tooltip="Who is seen, in which clothes, before which scene; not the action."
                ),
                TakeSocket.Output(
                    display_name="example", tooltip="The truth about person, action and camera, for Measure Avatar."
                ),
            ],
        )

    @classmethod
    def execute(cls, person, action, camera) -> io.NodeOutput:
        from ..flexiact_core.world.take_cases import example_take
        from ..flexiact_core.world.takes import render_avatar, take_caption

        with memory.normal_tensors():
            case = example_take(person, action, camera)
            return io.NodeOutput(render_avatar(case.take), take_caption(case.take), case)


class MeasureAvatar(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MeasureAvatar",
            display_name="Measure Avatar",
            category="FlexiAct/small world",
            description=(
                "Measures how well a video of the small AMG follows its avatar and shows its scene, against the true "
                "video, and draws it. The person is told from the ground by colours."
            ),
            search_aliases=["amg evaluate", "silhouette", "outline overlap", "camera fidelity"],
            inputs=[
                io.Image.Input("frames", tooltip="8 frames of 64x64 pixels, made from the example's avatar."),
                TakeSocket.Input("example", tooltip="The truth, from Load Example Avatar."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="picture",
                    tooltip="Avatar, true video, measured video, and the outline's overlap in each frame.",
                ),
                io.Float.Output(
                    display_name="overlap",
                    tooltip="How much of the person's outline is the avatar's. 0: nothing. 1: all of it.",
                ),
                io.Float.Output(
                    display_name="camera",
                    tooltip="How much less that is for another camera's avatar. 0: the camera has no effect.",
                ),
                io.String.Output(
                    display_name="scene", tooltip="The scene whose colour the ground has; empty for no scene's."
                ),
            ],
        )

    @classmethod
    def execute(cls, frames, example) -> io.NodeOutput:
        from ..flexiact_core.world.take_picture import draw_take_measure

        with memory.normal_tensors():
            picture, seen, less = draw_take_measure(memory.ordinary(frames).cpu(), example)
        return io.NodeOutput(picture, seen.overlap, less, seen.scene)
