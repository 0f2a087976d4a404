"""Workflows that use models of ComfyUI's own, which cannot be had here, without them."""

from __future__ import annotations

LOADERS = {"CLIPLoader", "FrameInterpolationModelLoader", "UpscaleModelLoader"}
# What would come out of these is what goes in, or a sentence.
PASSED_ON = {"FrameInterpolate": "images", "ImageUpscaleWithModel": "image"}
WRITTEN = {"TextGenerate": "A figure in a room."}


def without_core_models(prompt: dict) -> dict:
    """`prompt` with frames as they are where others would be drawn or enlarged, and a sentence for written words."""

    def given(value):
        if not isinstance(value, list) or value[0] not in prompt:
            return value
        source = prompt[value[0]]
        if source["class_type"] in WRITTEN:
            return WRITTEN[source["class_type"]]
        if source["class_type"] in PASSED_ON:
            return given(source["inputs"][PASSED_ON[source["class_type"]]])
        return value

    gone = LOADERS | PASSED_ON.keys() | WRITTEN.keys() | {"PreviewAny"}
    return {
        key: node | {"inputs": {name: given(value) for name, value in node["inputs"].items()}}
        for key, node in prompt.items()
        if node["class_type"] not in gone
    }
