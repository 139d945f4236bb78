"""What the page asks of a file's blocks: how much each changes, and a new file of them at other strengths.

As the other routes, for names that the loaders list alone. Both take seconds, so one thread of the server's works on
them at a time, and none for a page that asks no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ....lyco_core.comparing import Norms, drawn, measured
from ....lyco_core.errors import LycoError, about_file, advising
from ....lyco_core.io.small_json import parse_small
from ..advice import SAVE_BLOCKS
from ..files import adapter_names, cached_adapter_set
from ..jobs.combining import save_selected
from ..schema import selection
from .kept import Kept
from .route import MISSING, MOST_JSON, PRIVATE, WHOLE_FILE, listed_name, small_header, why_no_json

if TYPE_CHECKING:
    from aiohttp import web

ASKED = ("adapter", "include", "exclude", "block_strengths")
"""What it is saved by: the values of the node's inputs, all texts."""

NO_FILE = {"error": MISSING}

_measured: Kept[Norms] = Kept(32)
_one = asyncio.Lock()


class Left(Exception):
    """Whoever asked is gone."""


def add_block_routes(server: Any) -> None:
    """Give ComfyUI's server the routes `/lyco/blocks` and `/lyco/save_blocks`."""
    from aiohttp import web

    routes = server.routes

    @routes.get("/lyco/blocks")
    async def blocks(request: web.Request) -> web.Response:
        name = listed_name(request)
        if name is None:
            return web.json_response(NO_FILE, status=404, headers=PRIVATE)
        try:
            found = await norms_for(request, name)
        except Left:
            return web.Response(status=204, headers=PRIVATE)
        if isinstance(found, str):
            return web.json_response({"error": found}, status=422, headers=PRIVATE)
        return web.json_response(drawn(found), headers=PRIVATE)

    @routes.post("/lyco/save_blocks")
    async def save(request: web.Request) -> web.Response:
        if why := why_no_json(request):
            return web.json_response({"error": why}, status=415, headers=PRIVATE)
        asked = _asked(await request.read())
        if asked is None or asked["adapter"] not in adapter_names():
            return web.json_response(NO_FILE, status=404, headers=PRIVATE)
        async with WHOLE_FILE:
            status, found = await asyncio.to_thread(_saved, **asked)
        return web.json_response(found, status=status, headers=PRIVATE)


async def norms_for(request: web.Request, name: str) -> Norms | str:
    """How much a file changes, or why that cannot be measured. Raises `Left` once whoever asked is gone."""
    async with _one:
        return await asyncio.to_thread(_norms_of, name, staying(request))


def staying(request: web.Request) -> Callable[[], None]:
    """What raises `Left` once whoever asked is gone."""

    def stay() -> None:
        if request.transport is None or request.transport.is_closing():
            raise Left

    return stay


def _norms_of(name: str, stay: Callable[[], None]) -> Norms | str:
    def make() -> Norms:
        with about_file(small_header(name)):
            return measured(cached_adapter_set(name), stay)

    stay()
    return _measured.of(name, make)


def _asked(body: bytes) -> dict[str, str] | None:
    """The values that a file is to be saved by; None where they are not all there, and texts."""
    try:
        found: Any = parse_small(body.decode(), MOST_JSON)
    except ValueError:
        return None
    values: list[Any] = [found.get(name) for name in ASKED] if isinstance(found, dict) else [None]
    return dict(zip(ASKED, values, strict=True)) if all(isinstance(value, str) for value in values) else None


def _saved(adapter: str, include: str, exclude: str, block_strengths: str) -> tuple[int, dict[str, str]]:
    """(status, answer): the new file's name, or why there is none."""
    try:
        with advising(SAVE_BLOCKS):
            return 200, {"adapter": save_selected(adapter, selection(include, exclude, block_strengths))}
    except LycoError as error:
        return 422, {"error": str(error)}
