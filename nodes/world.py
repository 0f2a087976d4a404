"""The small world's nodes: example inputs, and the measure of what came out."""

from __future__ import annotations

from comfy_api.latest import io

from .host import media, memory
from .sockets import ExampleSocket


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
