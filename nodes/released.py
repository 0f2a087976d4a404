"""The node that fetches released models."""

from __future__ import annotations

from comfy_api.latest import io, ui

from .host import folders, progress
from .released_fetching import describe, fetch
from .released_list import RELEASES


class GetReleasedModels(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GetReleasedModels",
            display_name="Get Released Models",
            category="FlexiAct",
            description=(
                "Fetches released models from their authors' pages into the model folders of the machine that ComfyUI "
                "runs on. Does nothing until it is switched on."
            ),
            search_aliases=["download models", "flexiact models", "missing models", "hugging face", "checkpoint"],
            inputs=[
                io.Combo.Input(
                    "models",
                    options=list(RELEASES),
                    tooltip=(
                        "What to fetch. Files that are there are kept; a download that was cut short goes on where it "
                        "stopped."
                    ),
                ),
                io.Boolean.Input(
                    "download",
                    default=False,
                    label_on="fetch now",
                    label_off="off",
                    tooltip=(
                        "On: fetches what is missing, up to tens of GB; by that you take on the licence on its page. "
                        "Off: says what would be fetched and how much is there, and asks nothing of the network."
                    ),
                ),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="What was done, or would be.")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, models=None, **_):
        return folders.files_state(*(folder for release in RELEASES.get(models, ()) for folder in release.folders()))

    @classmethod
    def execute(cls, models, download) -> io.NodeOutput:
        report = fetch(RELEASES[models]) if download else describe(RELEASES[models])
        progress.say(report)
        # What is shown tells the browser to read its lists anew.
        return io.NodeOutput(report, ui=ui.PreviewText(report))
