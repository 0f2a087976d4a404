"""Inputs that are said once: they are the same wherever they stand."""

from __future__ import annotations

import pytest

nodes = pytest.importorskip("flexiact_pack.nodes", reason="There is no ComfyUI to import the nodes in: `make setup`.")

from flexiact_pack.nodes import inputs  # noqa: E402
from flexiact_pack.nodes.host.folders import NONE_FOUND  # noqa: E402


def test_a_list_of_files_has_what_was_found_or_the_entry_that_says_that_nothing_was():
    assert inputs.file_list("file", {"b": 1, "a": 2}, "A file.").options == ["b", "a"]
    assert inputs.file_list("file", [], "A file.").options == [NONE_FOUND]


def test_a_seed_takes_any_that_comfyui_gives_and_says_what_it_is_after_a_run():
    from comfy_api.latest import io

    fixed = io.ControlAfterGenerate.fixed
    assert (inputs.seed().min, inputs.seed().max) == (0, 2**64 - 1)
    assert inputs.seed().control_after_generate is True
    assert inputs.seed("Fixes it.", new_each_run=False).control_after_generate == fixed


def test_a_learning_rate_names_its_default_as_a_plain_number():
    tooltip = inputs.learning_rate(0.00001, 0.0000001, "the authors' value").tooltip
    assert tooltip == "Size of each step. 0.00001: the authors' value. High: faster, then unstable. Low: slow."


def test_inputs_of_one_name_have_one_type_in_all_nodes():
    """What is said once cannot differ; what is said anew must not."""
    nodes.register_folders()
    types: dict[str, set[str]] = {}
    for node in nodes.NODE_CLASS_MAPPINGS.values():
        for item in node.define_schema().inputs:
            types.setdefault(item.id, set()).add(item.get_io_type())
    said_once = ("seed", "steps", "cfg", "prompt", "negative_prompt", "caption", "crops", "width", "height",
                 "num_frames", "scheduler", "learning_rate", "batch_size", "name", "resume")  # fmt: skip
    assert {name: kinds for name, kinds in types.items() if name in said_once and len(kinds) > 1} == {}
