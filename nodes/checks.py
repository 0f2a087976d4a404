"""What comes into a node, looked at before the node runs: numbers that are numbers, and values of the socket's kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from numbers import Real
from typing import Any

_NUMBERS = ("INT", "FLOAT")
_TEXTS = ("STRING", "COMBO")
# Kinds of a widget's value; poses may come as JSON text.
_NO_SOCKETS = ("COMFY_", "BOOLEAN", "COLOR", "POSE_KEYPOINT")


def check_inputs(nodes: Iterable[type]) -> None:
    """Makes execute and check_lazy_status of these nodes refuse values that no widget would give.

    ComfyUI compares a number with its bounds, which not-a-number passes, and looks at neither what comes over a link
    nor a constant that stands in a socket's place.
    """
    for node in nodes:
        for name in ("execute", "check_lazy_status"):
            if name in node.__dict__:
                setattr(node, name, classmethod(_checked(node, node.__dict__[name].__func__)))


def check_value(name: str, kind: str, value: Any) -> None:
    """Passes if an input of this kind (ComfyUI's io type) can have this value. What a number may be, the core says.

    Raises SettingError, with the input's name, otherwise.
    """
    from ..flexiact_core.checks import check_number
    from ..flexiact_core.errors import SettingError

    if value is None:
        raise SettingError(f"{name}: nothing came in. Set it, or connect a node that gives it.")
    if kind in _NUMBERS:
        # NumPy's numbers come over links, too.
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        check_number(name, float(value) if is_number else value)
    elif kind in _TEXTS:
        if not isinstance(value, str):
            raise SettingError(f"{name}: a text is needed here, {_shown(value)} came in. Choose or write one.")
    elif isinstance(value, (str, Real)) and kind.isupper() and not kind.startswith(_NO_SOCKETS):
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
        for name, (kind, may_be_missing) in _inputs(node).items():
            if name not in given or (given[name] is None and (lazy or may_be_missing)):
                continue
            check_value(name, kind, given[name])
        if not lazy:
            _refuse_what_was_asked_for(cls, given)
        return run(cls, *args, **kwargs)

    return checked


def _refuse_what_was_asked_for(node: type, given: dict[str, Any]) -> None:
    """Passes unless a lazy input that the node asks for is None: then nothing comes over its link."""
    asks = getattr(node, "check_lazy_status", None)
    # What may be of several kinds is looked at by the node, which can say more.
    lazy = [item.id for item in node.define_schema().inputs if getattr(item, "lazy", False) and not item.optional]
    lazy = [name for name in lazy if _inputs(node)[name][0].isidentifier()]
    empty = {name for name in lazy if name in given and given[name] is None}
    if empty:
        widgets = {name: value for name, value in given.items() if name != "cls"}
        for name in asks(**widgets):
            if name in empty:
                check_value(name, "*", None)


@lru_cache(maxsize=256)
def _inputs(node: type) -> dict[str, tuple[str, bool]]:
    """Kind, and whether it may be None, by input."""
    schema = node.define_schema()
    if schema.is_input_list:
        return {}
    return {
        item.id: (kind_of(item), bool(getattr(item, "optional", False) or getattr(item, "lazy", False)))
        for item in schema.inputs
    }


def kind_of(item: Any) -> str:
    """ComfyUI's io type of an input or output; of one that takes several, all of them, as A/B."""
    template = getattr(item, "template", None)
    return item.get_io_type() if template is None else "/".join(kind.io_type for kind in template.allowed_types)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text '{value[:40]}'"
    return str(value)[:40] if isinstance(value, Real) else f"a {type(value).__name__}"
