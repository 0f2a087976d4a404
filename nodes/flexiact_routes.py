"""What the pictures on the nodes ask the server: the weighting over the steps, and the clip that shows an action."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from ..flexiact_core.errors import FlexiActError, SettingError
from .cogvideox import base_config
from .flexiact import FAE_WORDS, FILES
from .host import folders


def add_routes(routes: web.RouteTableDef) -> None:
    """Puts /flexiact/weighting and /flexiact/preview among `routes`."""
    routes.get("/flexiact/weighting")(answer_weighting)
    routes.get("/flexiact/preview")(answer_preview)


async def answer_weighting(request: web.Request) -> web.Response:
    """JSON of the weighting that settings of FlexiAct Sampler, by their input names, make.

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
    """The .mp4 beside `file`, a name in the list of Load FAE Embedding; status 204, and nothing, if there is none.

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
