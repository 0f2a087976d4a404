"""What the nodes in the browser ask the server: the weighting over the steps, an action's clip, what is missing."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping

from aiohttp import web

from ..flexiact_core.errors import FlexiActError, SettingError
from .cogvideox import base_config
from .flexiact import FAE_WORDS, FILES
from .host import folders


def add_routes(routes: web.RouteTableDef) -> None:
    """Puts /flexiact/weighting, /flexiact/preview and /flexiact/missing among `routes`."""
    routes.get("/flexiact/weighting")(answer_weighting)
    routes.get("/flexiact/preview")(answer_preview)
    routes.get("/flexiact/missing")(answer_missing)


async def answer_weighting(request: web.Request) -> web.Response:
    """JSON of the weighting that settings of Action Transfer, by their input names, make.

    `base`, a name in the list of Load CogVideoX I2V, is whose own values stand for what is auto; without it, or with
    one that is not there, the released base's do.
    timesteps: where the steps lie, first to last, each 0..999. curve: the bias in logits at each timestep from 0 on.
    shown: strength and timesteps of that curve, by the names of the inputs. own_strength: the base's own.
    Status 400 with the sentence under "error" if the settings cannot be used.
    """
    try:
        # The first call imports the schedulers: the server stays free for others.
        return web.json_response(await asyncio.to_thread(_weighting, request.query))
    except FlexiActError as error:
        return web.json_response({"error": str(error)}, status=400)


async def answer_preview(request: web.Request) -> web.StreamResponse:
    """The .mp4 beside `file`, a name in the list of Load Action; status 204, and nothing, if there is none.

    Status 404 with a sentence under "error" if the list does not hold the name.
    """
    name = request.query.get("file", "")
    found = await asyncio.to_thread(folders.find_files, FILES, FAE_WORDS)
    if name not in found:
        return web.json_response({"error": FILES.missing(name)}, status=404)
    preview = found[name].with_suffix(".mp4")
    if not preview.is_file():
        return web.Response(status=204)
    # An action trained anew has a new clip under the same name.
    return web.FileResponse(preview, headers={"Cache-Control": "no-cache"})


async def answer_missing(request: web.Request) -> web.Response:
    """JSON of the sentence that node type `node` has for the files that its other inputs, by name, choose.

    sentence is empty where all of them are there, and for a node that chooses none.
    """
    return web.json_response({"sentence": await asyncio.to_thread(_missing, request.query)})


def _missing(chosen: Mapping[str, str]) -> str:
    from . import NODE_CLASS_MAPPINGS

    node = NODE_CLASS_MAPPINGS.get(chosen.get("node", ""))
    if node is None or "validate_inputs" not in node.__dict__:
        return ""
    asks = inspect.signature(node.validate_inputs).parameters
    values = {name: chosen.get(name) for name, one in asks.items() if name in chosen or one.default is one.empty}
    answer = node.validate_inputs(**values)
    return answer if isinstance(answer, str) else ""


def _weighting(settings: Mapping[str, str]) -> dict:
    from ..flexiact_core.cogvideox.own_values import own_values
    from ..flexiact_core.cogvideox.sampling import make_scheduler, take_steps
    from ..flexiact_core.flexiact.bias import choose_bias, own_bias

    config = base_config(settings.get("base", ""))
    bias = choose_bias(
        config,
        _number(settings, "bias_strength", float),
        _number(settings, "hold_until", int),
        _number(settings, "off_below", int),
        settings.get("weighting", ""),
    )
    steps = own_values(config).complete(steps=_number(settings, "steps", int))["steps"]
    # Where the steps lie does not depend on the base's noise schedule.
    scheduler = make_scheduler({}, settings.get("scheduler", ""))
    timesteps = take_steps(scheduler, steps)
    curve = [bias.at(t) for t in range(scheduler.config.num_train_timesteps)]
    shown = {"bias_strength": bias.strength, "hold_until": bias.hold_until, "off_below": bias.off_below}
    return {"timesteps": timesteps, "curve": curve, "shown": shown, "own_strength": own_bias(config).strength}


def _number(settings: Mapping[str, str], name: str, kind: Callable[[str], float]) -> float:
    text = settings.get(name, "")
    try:
        return kind(text)
    except ValueError:
        raise SettingError(f"{name} '{text}': a {'whole ' if kind is int else ''}number is needed.") from None
