"""What comes into a node, looked at before the node runs: numbers that are numbers, and values of the socket's kind."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from numbers import Real
from typing import Any

_NUMBERS = ("INT", "FLOAT")
_TEXTS = ("STRING", "COMBO")


def check_inputs(nodes: Iterable[type]) -> None:
    """Makes execute and check_lazy_status of these nodes refuse values that no widget would give.

    ComfyUI compares a number with its bounds, which not-a-number passes, and looks at neither what comes over a link
    nor a constant that stands in a socket's place.
    """
    for node in nodes:
        for name in ("execute", "check_lazy_status"):
            if name in node.__dict__:
                setattr(node, name, classmethod(_checked(node, node.__dict__[name].__func__)))


def check_value(name: str, kind: str, value: Any, bounds: str = "") -> None:
    """Passes if an input of this kind (ComfyUI's io type) can have this value.

    bounds says what a number may be. Raises SettingError, with the input's name, otherwise.
    """
    from ..flexiact_core.errors import SettingError

    if value is None:
        raise SettingError(f"{name}: nothing came in. Set it, or connect a node that gives it.")
    if kind in _NUMBERS:
        if not isinstance(value, Real) or not math.isfinite(value):
            raise SettingError(f"{name}: {_shown(value)} is no number that can be used here. Set a number{bounds}.")
    elif kind in _TEXTS:
        if not isinstance(value, str):
            raise SettingError(f"{name}: a text is needed here, {_shown(value)} came in. Choose or write one.")
    elif (
        isinstance(value, (str, Real))
        and kind.isupper()
        and not kind.startswith(("COMFY_", "BOOLEAN", "COLOR", "POSE_KEYPOINT"))
    ):
        raise SettingError(
            f"{name}: {_shown(value)} stands where {kind} is needed. Connect a node's output of that kind to it."
        )


def _checked(node: type, run: Callable) -> Callable:
    signature = inspect.signature(run)
    rest = next((name for name, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)
    lazy = run.__name__ == "check_lazy_status"

    @wraps(run)
    def checked(cls, *args, **kwargs):
        given = dict(signature.bind(cls, *args, **kwargs).arguments)
        given |= given.pop(rest, {})
        for name, (kind, bounds, may_be_missing) in _inputs(node).items():
            if name not in given or (given[name] is None and (lazy or may_be_missing)):
                continue
            check_value(name, kind, given[name], bounds)
        return run(cls, *args, **kwargs)

    return checked


@lru_cache(maxsize=256)
def _inputs(node: type) -> dict[str, tuple[str, str, bool]]:
    """Kind, bounds in words, and whether it may be None, by input."""
    schema = node.define_schema()
    if schema.is_input_list:
        return {}
    found = {}
    for item in schema.inputs:
        least, most = getattr(item, "min", None), getattr(item, "max", None)
        bounds = f" from {least} to {most}" if least is not None and most is not None else ""
        may_be_missing = bool(getattr(item, "optional", False) or getattr(item, "lazy", False))
        found[item.id] = (kind_of(item), bounds, may_be_missing)
    return found


def kind_of(item: Any) -> str:
    """ComfyUI's io type of an input or output; of one that takes several, all of them, as A/B."""
    template = getattr(item, "template", None)
    return item.get_io_type() if template is None else "/".join(kind.io_type for kind in template.allowed_types)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text '{value[:40]}'"
    return str(value)[:40] if isinstance(value, Real) else f"a {type(value).__name__}"
