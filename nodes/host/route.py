"""What the page asks the server: what an adapter file is, its picture, and how the running training stands.

Answers only for names that the loaders list, from the file's header; each is computed once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict

from ...lyco_core.card import card, picture
from ...lyco_core.errors import LycoError
from ...lyco_core.inspect import Inspection, inspect_file
from .files import adapter_names, adapter_path, fingerprint
from .training.telling import running

CACHED_CARDS = 64
PRIVATE = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}

_cache: OrderedDict[tuple, Inspection | LycoError] = OrderedDict()
_one_at_a_time = threading.Lock()
"""So that hostile files do not add up in memory."""


def add_routes(server) -> None:
    """Give ComfyUI's server the routes `/lyco/inspect`, `/lyco/picture` and `/lyco/training`."""
    from aiohttp import web

    routes = server.routes

    @routes.get("/lyco/inspect")
    async def inspect(request: web.Request) -> web.Response:
        found = await _asked(request)
        if found is None:
            return web.json_response({"error": "there is no such file in models/loras"}, status=404, headers=PRIVATE)
        if isinstance(found, LycoError):
            return web.json_response({"error": str(found)}, status=422, headers=PRIVATE)
        return web.json_response(card(found), headers=PRIVATE)

    @routes.get("/lyco/picture")
    async def show(request: web.Request) -> web.Response:
        found = await _asked(request)
        if found is None or isinstance(found, LycoError):
            return web.Response(status=404, headers=PRIVATE)
        path = adapter_path(request.query["adapter"])
        shown = await asyncio.to_thread(picture, path, found.adapter_set.metadata)
        if shown is None:
            return web.Response(status=204, headers=PRIVATE)
        return web.Response(body=shown[0], content_type=shown[1], headers=PRIVATE)

    @routes.get("/lyco/training")
    async def training(_request: web.Request) -> web.Response:
        return web.json_response(running(), headers=PRIVATE)


async def _asked(request) -> Inspection | LycoError | None:
    """What the file of the request is; None if the loaders list no such file."""
    name = request.query.get("adapter", "")
    if name not in adapter_names():
        return None
    return await asyncio.to_thread(_inspected, name)


def _inspected(name: str) -> Inspection | LycoError:
    with _one_at_a_time:
        try:
            identity = fingerprint(name)
        except (LycoError, OSError) as error:  # it went away since it was listed
            return error if isinstance(error, LycoError) else LycoError(f"{name}: cannot be read: {error.strerror}")
        if identity not in _cache:
            try:
                _cache[identity] = inspect_file(adapter_path(name))
            except LycoError as error:
                _cache[identity] = error.with_traceback(None)
            while len(_cache) > CACHED_CARDS:
                _cache.popitem(last=False)
        _cache.move_to_end(identity)
        return _cache[identity]
