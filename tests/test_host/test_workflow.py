"""From the frontend's format to the API's, without a server."""

from __future__ import annotations

import pytest
from host.workflow import WorkflowError, check_workflow, to_prompt

CODEC = ["COMFY_DYNAMICCOMBO_V3", {"options": [
    {"key": "auto", "inputs": {"required": {}}},
    {"key": "h264", "inputs": {"required": {"crf": ["FLOAT", {}], "audio": ["AUDIO", {}]}}},
]}]  # fmt: skip
INFO = {
    "Load": {
        "input": {"required": {"image": [["a.png", "b.png"], {"image_upload": True}]}},
        "output": ["IMAGE"],
        "output_name": ["IMAGE"],
    },
    "Sample": {
        "input": {
            "required": {
                "image": ["IMAGE"],
                "prompt": ["STRING", {"multiline": True}],
                "steps": ["INT", {"default": 20}],
                "seed": ["INT", {"control_after_generate": True}],
                "scheduler": ["COMBO", {"options": ["DPM", "DDIM"]}],
            },
            "optional": {"extra": ["VIDEO,IMAGE", {}]},
        },
        "output": ["IMAGE"],
        "output_name": ["frames"],
    },
    "Join": {
        "input": {
            "required": {"images": ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"image": ["IMAGE"]}}}}]}
        },
        "output": ["IMAGE"],
        "output_name": ["IMAGE"],
    },
    "Save": {
        "input": {"required": {"images": ["IMAGE"], "codec": CODEC, "tail": ["STRING", {"default": "x"}]}},
        "output": [],
        "output_name": [],
    },
}


def node(id_, type_, widgets, inputs=(), outputs=(), mode=0):
    return {
        "id": id_,
        "type": type_,
        "mode": mode,
        "widgets_values": widgets,
        "inputs": [{"name": name, "type": kind, "link": link} for name, kind, link in inputs],
        "outputs": [{"name": name, "type": kind, "links": links} for name, kind, links in outputs],
    }


@pytest.fixture
def workflow():
    return {
        "nodes": [
            node(1, "Load", ["b.png", "image"], outputs=[("IMAGE", "IMAGE", [1])]),
            node(2, "Sample", ["jump", 4, 9, "randomize", "DDIM"], [("image", "IMAGE", 1)], [("frames", "IMAGE", [2])]),
            node(3, "Save", ["h264", 20.0, "name"], [("images", "IMAGE", 2)]),
            node(4, "MarkdownNote", ["read me"]),
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    }


def inputs_of(workflow, id_):
    return to_prompt(workflow, INFO)[str(id_)]["inputs"]


def test_widgets_that_the_frontend_adds_are_skipped(workflow):
    assert inputs_of(workflow, 1) == {"image": "b.png"}
    assert inputs_of(workflow, 2) == {
        "image": ["1", 0], "prompt": "jump", "steps": 4, "seed": 9, "scheduler": "DDIM",
    }  # fmt: skip


def test_the_chosen_option_of_a_dynamic_combo_brings_its_own_widgets(workflow):
    saved = {"images": ["2", 0], "codec": "h264", "codec.crf": 20.0, "tail": "name"}
    assert inputs_of(workflow, 3) == saved
    workflow["nodes"][2]["widgets_values"] = ["auto", "name"]
    assert inputs_of(workflow, 3) == {"images": ["2", 0], "codec": "auto", "tail": "name"}


def test_a_widget_that_is_newer_than_the_workflow_gets_its_default(workflow):
    workflow["nodes"][2]["widgets_values"] = ["auto"]
    assert inputs_of(workflow, 3)["tail"] == "x"


def test_notes_and_muted_nodes_are_left_out(workflow):
    workflow["nodes"][0]["mode"] = 2
    prompt = to_prompt(workflow, INFO)
    assert set(prompt) == {"2", "3"}
    assert "image" not in prompt["2"]["inputs"]


def test_a_bypassed_node_hands_its_input_through(workflow):
    workflow["nodes"][1]["mode"] = 4
    assert inputs_of(workflow, 3)["images"] == ["1", 0]


def test_a_link_wins_over_the_widget_that_it_replaces(workflow):
    workflow["nodes"].append(node(5, "PrimitiveNode", [33, "fixed"], outputs=[("INT", "INT", [3])]))
    workflow["nodes"][1]["inputs"].append({"name": "steps", "type": "INT", "link": 3})
    workflow["links"].append([3, 5, 0, 2, 1, "INT"])
    assert inputs_of(workflow, 2)["steps"] == 33
    assert inputs_of(workflow, 2)["seed"] == 9


@pytest.fixture
def joined(workflow):
    """The workflow with two links into one growing input of a node."""
    slots = [("images.image0", "IMAGE", 3), ("images.image1", "IMAGE", 4), ("images.image2", "IMAGE", None)]
    workflow["nodes"].append(node(6, "Join", [], slots, [("IMAGE", "IMAGE", None)]))
    workflow["nodes"][0]["outputs"][0]["links"] += [3, 4]
    workflow["links"] += [[3, 1, 0, 6, 0, "IMAGE"], [4, 1, 0, 6, 1, "IMAGE"]]
    return workflow


def test_a_growing_input_is_sent_and_checked_socket_by_socket(joined):
    assert check_workflow(joined, INFO) == []
    assert inputs_of(joined, 6) == {"images.image0": ["1", 0], "images.image1": ["1", 0]}
    slots = joined["nodes"][-1]["inputs"]
    slots[0]["type"] = "MASK"
    assert any("'images.image0' is IMAGE, not MASK" in fault for fault in check_workflow(joined, INFO))
    slots[0]["link"] = slots[1]["link"] = None
    assert any("'images' is not connected" in fault for fault in check_workflow(joined, INFO))


def test_a_missing_node_type_is_named(workflow):
    workflow["nodes"][1]["type"] = "Gone"
    with pytest.raises(WorkflowError, match="Gone.*node 2"):
        to_prompt(workflow, INFO)


def test_a_widget_value_too_many_is_named(workflow):
    workflow["nodes"][1]["widgets_values"].append("left over")
    with pytest.raises(WorkflowError, match="left over"):
        to_prompt(workflow, INFO)


def test_the_check_passes_a_workflow_that_fits(workflow):
    assert check_workflow(workflow, INFO) == []


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda w: w["nodes"][1]["inputs"][0].update(name="picture"), "no input 'picture'"),
        (lambda w: w["nodes"][1]["inputs"][0].update(link=None), "'image' is not connected"),
        (lambda w: w["nodes"][1]["outputs"][0].update(name="old"), "outputs are"),
        (lambda w: w["nodes"][1]["widgets_values"].__setitem__(1, "fixed"), "no value for the widget 'steps'"),
        (lambda w: w["nodes"][0]["outputs"][0].update(type="MASK"), "MASK is connected to IMAGE"),
        (lambda w: w["nodes"][0]["outputs"][0].update(links=[]), "do not know it"),
        (lambda w: w["links"].append([9, 77, 0, 2, 0, "IMAGE"]), "does not exist"),
    ],
)
def test_the_check_names_what_does_not_fit(workflow, spoil, complaint):
    spoil(workflow)
    assert any(complaint in fault for fault in check_workflow(workflow, INFO))
