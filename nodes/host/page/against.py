"""What the page asks of a file beside a model's: how large its change is as a share of the model's own weights.

As the other routes, for names that the loaders list alone. All of a model may be read for it, which takes a minute of a
large one: one thread of the server's does so, for one page at a time, which is told how far. When it asks no more,
nothing is read any longer.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ....lyco_core.comparing import ModelNorms, Norms, Shares, drawn_shares
from ....lyco_core.errors import LycoError, about_file
from ..files import Stamp, cached_adapter_set, stamp
from ..jobs.model_files import checkpoint_names, checkpoint_path
from .blocks import Left, norms_for, staying
from .route import MISSING, PRIVATE, listed_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

MOST_MODELS = 4
"""Models whose norms are kept, some megabytes of each."""

PAUSE = 0.25
"""Seconds between two lines of progress."""

LINES = "application/x-ndjson"
NO_MODEL = "there is no such file in models/diffusion_models or models/checkpoints, safetensors or GGUF"

_models: OrderedDict[Stamp, ModelNorms] = OrderedDict()
_one = asyncio.Lock()


def add_against_route(server: Any) -> None:
    """Give ComfyUI's server the route `/lyco/against`: lines of JSON, `{"done", "total"}` and last the answer."""
    from aiohttp import web

    @server.routes.get("/lyco/against")
    async def against(request: web.Request) -> web.StreamResponse:
        name, model = listed_name(request), request.query.get("model", "")
        if name is None:
            return web.json_response({"error": MISSING}, status=404, headers=PRIVATE)
        if model not in checkpoint_names():
            return web.json_response({"error": NO_MODEL}, status=404, headers=PRIVATE)
        answer = web.StreamResponse(headers={**PRIVATE, "Content-Type": LINES})
        await answer.prepare(request)
        try:
            norms = await norms_for(request, name)
            found = {"error": norms} if isinstance(norms, str) else await _compared(request, answer, name, model, norms)
            await answer.write(_line(found))
        except (Left, ConnectionError):
            pass
        return answer


async def _compared(
    request: web.Request, answer: web.StreamResponse, name: str, model: str, norms: Norms
) -> dict[str, Any]:
    """The shares, or the error; meanwhile the page is told how far it is."""
    stay, told = staying(request), {"done": 0, "total": 0}

    def progress(done: int, total: int) -> None:
        stay()
        told.update(done=done, total=total)

    async with _one:
        work = asyncio.create_task(asyncio.to_thread(_shares_of, name, model, norms, progress))
        try:
            while not (await asyncio.wait([work], timeout=PAUSE))[0]:
                await answer.write(_line(told))
        finally:  # the thread sees that nobody waits, and the next one may begin
            await asyncio.wait([work])
    found = work.result()
    return {"error": found} if isinstance(found, str) else dict(found)


def _line(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _shares_of(name: str, model: str, norms: Norms, progress: Callable[[int, int], None]) -> Shares | str:
    """The shares, or why there are none."""
    progress(0, 0)
    try:
        with about_file(name):
            whole = _norms_of_model(checkpoint_path(model)).of(cached_adapter_set(name), progress)
    except LycoError as error:
        return str(error)
    except OSError as error:  # one of them went away since it was listed
        return str(LycoError(f"{model}: cannot be read: {error.strerror}"))
    return drawn_shares(norms, whole)


def _norms_of_model(path: str) -> ModelNorms:
    """What is known of a model file, as long as it is the same one."""
    found = stamp(path)
    if found not in _models:
        _models[found] = ModelNorms(path)
    _models.move_to_end(found)
    while len(_models) > MOST_MODELS:
        _models.popitem(last=False)
    return _models[found]
