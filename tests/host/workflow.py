"""Shipped workflows are in the frontend's format; the HTTP API takes another. This is the way from one to the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .environment import ROOT

FOLDER = Path(ROOT) / "workflows"
Node = dict
# Exist in the browser only.
NOTES = {"Note", "MarkdownNote"}
VIRTUAL = NOTES | {"Reroute", "PrimitiveNode"}
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3", "COLOR", "LOAD_3D"}
VALUE_TYPES = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COLOR": str}
MATCHED = "COMFY_MATCHTYPE_V3"
MUTED, BYPASSED = 2, 4


class WorkflowError(Exception):
    """A workflow does not fit the server's node types; the message names the node and what is wrong with it."""


def short_name(path: Path) -> str:
    """What the tests call a shipped workflow: flexiact_train, of 'flexiact train - learn an action from a video'."""
    return path.stem.partition(" - ")[0].replace(" ", "_")


def find_workflow(name: str) -> Path:
    """The shipped workflow of a short name. Raises FileNotFoundError if there is none, or more than one."""
    found = [path for path in FOLDER.glob("*.json") if short_name(path) == name]
    if len(found) != 1:
        raise FileNotFoundError(f"{len(found)} workflows are called {name}.")
    return found[0]


def to_prompt(workflow: dict, object_info: dict) -> dict:
    """The API prompt that the frontend would send for `workflow`.

    object_info is the server's answer at /object_info. Notes are left out, muted nodes too; bypassed nodes
    hand their inputs through. Raises WorkflowError if a node type is missing or its widgets do not fit.
    """
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in map(_as_list, workflow["links"])}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in VIRTUAL or node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        inputs = dict(widget_values(node, object_info))
        for slot in node.get("inputs", []):
            source = _follow(slot.get("link"), nodes, links)
            if isinstance(source, tuple):
                inputs[slot["name"]] = [str(source[0]), source[1]]
            elif source is not None:
                inputs[slot["name"]] = source["value"]
        title = node.get("title") or object_info[node["type"]].get("display_name") or node["type"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}
    return prompt


def inside(blueprint: dict) -> dict:
    """The graph in a subgraph blueprint, as a workflow; what comes in from outside is not connected."""
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    ends = {subgraph["inputNode"]["id"], subgraph["outputNode"]["id"]}
    links = [link for link in map(_as_list, subgraph["links"]) if not ends & {link[1], link[3]}]
    return {**blueprint, "nodes": subgraph["nodes"], "links": links}


def blueprint_to_prompt(blueprint: dict, object_info: dict, values: dict) -> dict:
    """The API prompt of a subgraph blueprint, with other values of its widgets and sockets, by their names.

    Nodes are called as the frontend calls them, by the ids of the blueprint's node and of the one inside.
    """
    (node,), (subgraph,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    widgets = [slot["name"] for slot in node["inputs"] if "widget" in slot]
    given = dict(zip(widgets, node["widgets_values"], strict=True)) | values
    prompt = to_prompt(inside(blueprint), object_info)
    inner = {one["id"]: one for one in subgraph["nodes"]}
    outer = subgraph["inputNode"]["id"]
    called = {key: f"{node['id']}:{key}" for key in prompt}
    for one in prompt.values():
        sources = {name: value for name, value in one["inputs"].items() if isinstance(value, list)}
        one["inputs"] |= {name: [called[source], slot] for name, (source, slot) in sources.items()}
    for _, source, slot, target, into, _ in map(_as_list, subgraph["links"]):
        name = subgraph["inputs"][slot]["name"]
        if source == outer and name in given:
            prompt[str(target)]["inputs"][inner[target]["inputs"][into]["name"]] = given[name]
    return {called[key]: one for key, one in prompt.items()}


def check_workflow(workflow: dict, object_info: dict) -> list[str]:
    """What in `workflow` does not fit the server's node types, one line each; empty if all of it fits."""
    faults = []
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for node in workflow["nodes"]:
        if node["type"] in VIRTUAL:
            continue
        try:
            widgets = dict(widget_values(node, object_info))
        except WorkflowError as error:
            faults.append(str(error))
            continue
        info, name = object_info[node["type"]], _name(node)
        known = dict(_inputs(info)) | dict(_growing_slots(info, node))
        for key, value in widgets.items():
            if key in known and not _is_value(value, _type(known[key])):
                faults.append(f"{name}: {value!r} is no value for the widget {key!r}")
        for slot in node.get("inputs", []):
            if slot["name"] not in known and slot["name"] not in widgets:
                faults.append(f"{name}: there is no input {slot['name']!r}")
            elif slot["name"] in known and not _fits(slot["type"], _type(known[slot["name"]])):
                faults.append(f"{name}: input {slot['name']!r} is {_type(known[slot['name']])}, not {slot['type']}")
        connected = {slot["name"].split(".")[0] for slot in node.get("inputs", []) if slot.get("link") is not None}
        for key in info["input"].get("required", {}):
            if key not in connected and key not in widgets:
                faults.append(f"{name}: required input {key!r} is not connected")
        shown = [(slot["name"], slot["type"]) for slot in node.get("outputs", [])]
        real = list(zip(info["output_name"], [_type([kind]) for kind in info["output"]]))
        # An output that takes the type of what comes in is saved with that type.
        fits = [
            shown_name == real_name and kind in (saved, MATCHED)
            for (shown_name, saved), (real_name, kind) in zip(shown, real)
        ]
        if len(shown) != len(real) or not all(fits):
            faults.append(f"{name}: outputs are {real}, not {shown}")
    for link in map(_as_list, workflow["links"]):
        faults += _link_faults(link, nodes)
    return faults


def widget_values(node: Node, object_info: dict) -> Iterator[tuple[str, object]]:
    """(input name, value) of each widget of a node, in order, with the names that the API uses.

    Raises WorkflowError if the node type is missing, or has more or fewer widgets than the node has values.
    """
    if node["type"] not in object_info:
        raise WorkflowError(f"{_name(node)}: the server has no node type {node['type']!r}")
    values = node.get("widgets_values") or []
    specs = [(name, spec) for name, spec in _inputs(object_info[node["type"]]) if _has_widget(spec)]
    if isinstance(values, dict):
        yield from ((name, values[name]) for name, _ in specs if name in values)
        return
    rest = list(values)
    for name, spec in specs:
        yield from _take(name, spec, rest, node)
    if rest:
        raise WorkflowError(f"{_name(node)}: {len(rest)} widget values too many, from {rest[0]!r} on")


def _take(name: str, spec: list, rest: list, node: Node) -> Iterator[tuple[str, object]]:
    """The value of one widget off the front of `rest`, with those of the widgets that come along with it."""
    options = spec[1] if len(spec) > 1 else {}
    if not rest and "default" not in options:
        raise WorkflowError(f"{_name(node)}: no value for the widget {name!r}")
    # A workflow that is older than the widget has no value for it.
    value = rest.pop(0) if rest else options["default"]
    yield name, value
    if _type(spec) == "COMFY_DYNAMICCOMBO_V3":
        chosen = next((option for option in options["options"] if option["key"] == value), None)
        if chosen is None:
            raise WorkflowError(f"{_name(node)}: {name!r} has no option {value!r}")
        for inner, inner_spec in _inputs({"input": chosen["inputs"]}):
            if _has_widget(inner_spec):
                yield from _take(f"{name}.{inner}", inner_spec, rest, node)
    # The frontend adds these widgets, and saves their values, by itself.
    is_seed = _type(spec) == "INT" and name in ("seed", "noise_seed")
    if rest and (options.get("control_after_generate") or is_seed) and rest[0] in (
        "fixed", "increment", "decrement", "randomize",
    ):  # fmt: skip
        rest.pop(0)
    if rest and any(options.get(f"{kind}_upload") for kind in ("image", "video", "audio")):
        rest.pop(0)


def _inputs(info: dict) -> Iterator[tuple[str, list]]:
    for group in ("required", "optional"):
        specs = info["input"].get(group, {})
        for name in info.get("input_order", {}).get(group, specs):
            yield name, specs[name]


def _growing_slots(info: dict, node: Node) -> Iterator[tuple[str, list]]:
    """The sockets that the frontend adds to a node as they are used, by their names in the workflow."""
    for name, spec in _inputs(info):
        if _type(spec) == "COMFY_AUTOGROW_V3":
            (inner,) = spec[1]["template"]["input"]["required"].values()
            for slot in node.get("inputs", []):
                if slot["name"].startswith(f"{name}."):
                    yield slot["name"], inner


def _type(spec: list) -> str:
    if spec[0] == MATCHED and len(spec) > 1:
        return spec[1]["template"]["allowed_types"]
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def _is_value(value, kind: str) -> bool:
    if isinstance(value, bool):
        return kind not in VALUE_TYPES or kind == "BOOLEAN"
    return isinstance(value, VALUE_TYPES.get(kind, object))


def _has_widget(spec: list) -> bool:
    options = spec[1] if len(spec) > 1 else {}
    kind = options.get("widgetType") or _type(spec)
    return kind in WIDGET_TYPES and not options.get("forceInput") and not options.get("rawLink")


def _follow(link_id, nodes: dict, links: dict):
    """What a link brings: (node id, slot), {"value": ...} from a primitive, or None if nothing comes."""
    if link_id is None or link_id not in links:
        return None
    _, source_id, source_slot, _, _, kind = links[link_id][:6]
    source = nodes[source_id]
    inputs = source.get("inputs", [])
    if source["type"] == "PrimitiveNode":
        return {"value": source["widgets_values"][0]}
    if source["type"] == "Reroute":
        return _follow(inputs[0].get("link"), nodes, links)
    if source.get("mode", 0) == MUTED:
        return None
    if source.get("mode", 0) == BYPASSED:
        same = [slot for slot in inputs if _fits(slot["type"], kind)]
        return _follow(same[0].get("link"), nodes, links) if same else None
    return source_id, source_slot


def _fits(one: str, other: str) -> bool:
    if "*" in (one, other):
        return True
    return bool(set(one.split(",")) & set(other.split(",")))


def _link_faults(link: list, nodes: dict) -> list[str]:
    link_id, source, source_slot, target, target_slot, kind = link[:6]
    try:
        out, into = nodes[source]["outputs"][source_slot], nodes[target]["inputs"][target_slot]
    except (KeyError, IndexError):
        return [f"link {link_id}: an end of it does not exist"]
    faults = []
    if link_id not in (out.get("links") or []) or into.get("link") != link_id:
        faults.append(f"link {link_id}: the nodes at its ends do not know it")
    if not (_fits(out["type"], kind) and _fits(into["type"], kind)):
        faults.append(f"link {link_id}: {out['type']} is connected to {into['type']}")
    return faults


def _as_list(link) -> list:
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return [link[key] for key in keys] if isinstance(link, dict) else link


def _name(node: Node) -> str:
    return f"{node['type']} (node {node['id']})"
