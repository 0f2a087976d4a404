"""What no widget gives is refused with a sentence, before a node runs."""

import math

import pytest

nodes = pytest.importorskip("flexiact_pack.nodes", reason="needs ComfyUI: run `make test`")

from flexiact_pack.nodes.checks import check_value  # noqa: E402

from flexiact_core.errors import SettingError  # noqa: E402

nodes.register_folders()

NUMBERS = ("INT", "FLOAT")
NO_SOCKETS = (*NUMBERS, "STRING", "COMBO", "BOOLEAN", "COLOR", "POSE_KEYPOINT")  # poses may come as JSON text


def inputs_of(node):
    schema = node.define_schema()
    return {} if schema.is_input_list else {item.id: item for item in schema.inputs}


def good_value(item):
    """Something that the checks let pass."""
    kind = item.get_io_type()
    return (item.default or item.min or 1) if kind in NUMBERS else "x" if kind in ("STRING", "COMBO") else object()


def cases(wanted):
    return [
        pytest.param(node, item, id=f"{name}.{item.id}")
        for name, node in nodes.NODE_CLASS_MAPPINGS.items()
        for item in inputs_of(node).values()
        if wanted(item.get_io_type())
    ]


def run(node, name, value):
    return node.execute(**{item.id: good_value(item) for item in inputs_of(node).values()} | {name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", [1.0]], ids=str)
@pytest.mark.parametrize(("node", "item"), cases(lambda kind: kind in NUMBERS))
def test_a_number_that_is_none_is_refused_in_every_input(node, item, value):
    with pytest.raises(SettingError, match=rf"^{item.id} (nan|-?inf|str|list): a number .*is needed\."):
        run(node, item.id, value)


@pytest.mark.parametrize(("node", "item"), cases(lambda kind: kind.isupper() and kind not in NO_SOCKETS))
def test_a_constant_in_a_sockets_place_is_refused(node, item):
    with pytest.raises(SettingError, match=rf"^{item.id}: the text 'x' stands where \S+ is needed. Connect"):
        run(node, item.id, "x")


@pytest.mark.parametrize(("node", "item"), cases(lambda kind: True))
def test_nothing_is_refused_where_something_is_needed(node, item):
    if getattr(item, "optional", False) or getattr(item, "lazy", False):
        pytest.skip("may be missing")
    with pytest.raises(SettingError, match=f"^{item.id}: nothing came in. Set it, or connect"):
        run(node, item.id, None)


def test_what_widgets_and_nodes_give_passes():
    for kind, value in (("FLOAT", 0.5), ("FLOAT", 3), ("INT", 2**64 - 1), ("STRING", ""), ("COMBO", "auto"),
                        ("BOOLEAN", True), ("IMAGE", object()), ("POSE_KEYPOINT", [{}]), ("IMAGE,VIDEO", object()),
                        ("*", "anything")):  # fmt: skip
        check_value("x", kind, value)


def test_numbers_of_numpy_pass():
    import numpy as np

    check_value("x", "FLOAT", np.float32(0.5))
    check_value("x", "INT", np.int64(3))


def test_what_a_node_asks_for_and_does_not_get_is_named():
    sampler = nodes.NODE_CLASS_MAPPINGS["FlexiActSampler"]
    good = {item.id: item.default for item in inputs_of(sampler).values() if getattr(item, "default", None) is not None}
    with pytest.raises(SettingError, match="^model: nothing came in"):
        sampler.execute(**good | {"prompt": "", "negative_prompt": "", "model": None, "image": None, "fae": None})
