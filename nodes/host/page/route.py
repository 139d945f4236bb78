"""What the page asks the server: what an adapter file is, its picture, a copy of it for ComfyUI's own loaders, and how
the last training stands.

Answers only for names that the loaders list, from the file's header; each card is computed once.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from ....lyco_core.architectures import index_families
from ....lyco_core.card import card, picture
from ....lyco_core.errors import FileError, LycoError, about_file, advising
from ....lyco_core.inspection import inspect_file
from ....lyco_core.io import MAX_HEADER_BYTES, header_length, read_header
from ....lyco_core.io.small_json import parse_small
from ....lyco_core.pictures import Picture
from ..advice import STOCK_COPY
from ..files import adapter_names, adapter_path, is_listed
from ..jobs.stock_copy import copy_for_stock, copy_is_of_use, is_stock_copy, stock_copy_of
from ..training.folder_inputs import checked_inputs
from ..training.survey import survey
from ..training.telling import last_training
from .kept import Kept

if TYPE_CHECKING:
    from aiohttp import web

MOST_HEADER_BYTES = 2**24
"""A header of an adapter has up to 1 MB, and some more with a picture in it. What reading a larger one
takes is taken from a server that draws and samples meanwhile; the nodes and `lyco inspect` do read it."""

MOST_INPUTS = 2**14
"""So long may the values of a node's widgets be."""

MISSING = "there is no such file in models/loras"
JSON = "application/json"
MOST_JSON = 2**16
"""So long may what is sent be."""

PRIVATE = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
OF_A_STRANGER = {
    **PRIVATE,
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""A picture is shown as a picture of this page, and as nothing else, whatever else its bytes are."""

_cards: Kept[dict[str, Any]] = Kept(64)
_one_at_a_time = threading.Lock()
"""So that hostile files do not add up in memory."""
_one_survey = asyncio.Lock()
"""A folder of videos takes minutes: however many wait for theirs, one thread of the server's is taken."""
WHOLE_FILE = asyncio.Lock()
"""All of an adapter is in memory while another is made of it."""


def add_routes(server: Any) -> None:
    """Give ComfyUI's server the routes `/lyco/inspect`, `/lyco/picture`, `/lyco/copy`, `/lyco/dataset` and
    `/lyco/training`.
    """
    from aiohttp import web

    # While ComfyUI starts: the first card would take three times as long as the next ones.
    threading.Thread(target=index_families, name="lyco families", daemon=True).start()
    routes = server.routes

    @routes.get("/lyco/inspect")
    async def inspect(request: web.Request) -> web.Response:
        name = listed_name(request)
        if name is None:
            return web.json_response({"error": MISSING}, status=404, headers=PRIVATE)
        found = await asyncio.to_thread(_card_of, name)
        if isinstance(found, str):
            return web.json_response({"error": found}, status=422, headers=PRIVATE)
        copy = await asyncio.to_thread(_copy_of, name) if found["copy"] else None
        return web.json_response(found | {"copy": copy}, headers=PRIVATE)

    @routes.post("/lyco/copy")
    async def copy(request: web.Request) -> web.Response:
        if why := why_no_json(request):
            return web.json_response({"error": why}, status=415, headers=PRIVATE)
        name = listed_name(request)
        if name is None:
            return web.json_response({"error": MISSING}, status=404, headers=PRIVATE)
        async with WHOLE_FILE:
            made, error = await asyncio.to_thread(_copied, name)
        if error:
            return web.json_response({"error": error}, status=422, headers=PRIVATE)
        return web.json_response({"name": made}, headers=PRIVATE)

    @routes.get("/lyco/picture")
    async def show(request: web.Request) -> web.Response:
        name = listed_name(request)
        if name is None:
            return web.Response(status=404, headers=PRIVATE)
        try:
            shown = await asyncio.to_thread(_picture_of, name)
        except LycoError:  # its card says why
            return web.Response(status=404, headers=PRIVATE)
        if shown is None:
            return web.Response(status=204, headers=PRIVATE)
        return web.Response(body=shown.data, content_type=shown.kind, headers=OF_A_STRANGER)

    @routes.get("/lyco/training")
    async def training(_request: web.Request) -> web.Response:
        return web.json_response(last_training(), headers=PRIVATE)

    @routes.get("/lyco/dataset")
    async def dataset(request: web.Request) -> web.Response:
        async with _one_survey:
            found = await asyncio.to_thread(_survey_of, request.query.get("inputs", ""))
        if isinstance(found, str):
            return web.json_response({"error": found}, status=422, headers=PRIVATE)
        return web.json_response(found, headers=PRIVATE)


def _survey_of(text: str) -> dict[str, Any] | str:
    """What is in the folder that the values of a node's widgets, as JSON, name; or why nothing is."""
    try:
        return survey(checked_inputs(parse_small(text, MOST_INPUTS)))
    except LycoError as error:
        return str(error)
    except (ValueError, OSError, ArithmeticError) as error:
        return str(LycoError(f"the folder cannot be looked into: {error}"))


def why_no_json(request: web.Request) -> str:
    """Why a request that writes a file is refused; empty if it is JSON of no great length, or of none.

    Another site's page would have to ask first before it may send this type.
    """
    length = request.content_length if request.can_read_body else 0
    if request.content_type == JSON and length is not None and length <= MOST_JSON:
        return ""
    return f"expected a request of the type {JSON}, of at most {MOST_JSON} bytes"


def listed_name(request: web.Request) -> str | None:
    """The name of the file that a request is about; None if the loaders list no such file."""
    name = request.query.get("adapter", "")
    return name if name in adapter_names() else None


def _card_of(name: str) -> dict[str, Any] | str:
    def make() -> dict[str, Any]:
        inspection = inspect_file(small_header(name))
        return {**card(inspection), "copy": copy_is_of_use(inspection.adapter_set)}

    with _one_at_a_time:
        return _cards.of(name, make)


def _copy_of(name: str) -> dict[str, Any]:
    """The name of a file's copy for ComfyUI's own loaders, and whether it is there, by what it says it was made of."""
    copy = stock_copy_of(name)
    try:
        there = is_listed("loras", copy) and is_stock_copy(read_header(small_header(copy)).metadata, name)
    except (LycoError, OSError):  # something else of that name, which is refused when the copy is to be written
        there = False
    return {"name": copy, "there": there}


def _copied(name: str) -> tuple[str, str]:
    """The name of the new copy; or nothing, and why there is none."""
    try:
        with advising(STOCK_COPY):
            return copy_for_stock(name), ""
    except LycoError as error:
        return "", str(error)


def _picture_of(name: str) -> Picture | None:
    with _one_at_a_time:
        path = small_header(name)
        return picture(path, read_header(path).metadata)


def small_header(name: str) -> str:
    """The path of a file whose header may be read for a card, or is refused by what reads it."""
    path = adapter_path(name)
    with about_file(path):
        length = header_length(path)
        if MOST_HEADER_BYTES < length <= MAX_HEADER_BYTES:
            raise FileError(
                f"its header is {length} bytes, a card is drawn of at most {MOST_HEADER_BYTES}; "
                "the loaders and `lyco inspect` read it"
            )
    return path
