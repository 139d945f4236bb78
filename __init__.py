"""comfyui-lyco: LoHa and LoKr adapters in ComfyUI, exactly, or with an error that says why.

ComfyUI imports this folder and awaits `comfy_entrypoint`. Nothing of ComfyUI is imported before
that, so that tools may import the folder without it.
"""

import sys
from pathlib import Path

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

_COUNTS = "comfyui_lyco"
"""The module that a process knows the pack by, whatever its folder is called."""

_first = sys.modules.get(_COUNTS)
_later = _first is not None and _first.__file__ != __file__
if _later:  # ComfyUI would take nodes from the last copy, routes from the first, and the page from either
    WEB_DIRECTORY = None


async def comfy_entrypoint():
    """The pack's nodes, for ComfyUI's V3 node API; none in a process that has another copy's."""
    import logging

    from comfy_api.latest import ComfyExtension
    from server import PromptServer

    from .lyco_core.installed import counted_once, unserved
    from .nodes import node_classes
    from .nodes.host.page.against import add_against_route
    from .nodes.host.page.blocks import add_block_routes
    from .nodes.host.page.route import add_routes

    log, here = logging.getLogger("lyco"), Path(__file__).parent
    if _later:
        log.warning("%s", counted_once(Path(_first.__file__).parent, here))
        nodes = []
    else:
        nodes = node_classes()
        if (server := getattr(PromptServer, "instance", None)) is not None:
            add_routes(server)
            add_block_routes(server)
            add_against_route(server)
        if (advice := unserved(here)) is not None:
            log.warning("%s", advice)
        sys.modules[_COUNTS] = sys.modules[__name__]

    class LycoExtension(ComfyExtension):
        async def get_node_list(self):
            return nodes

    return LycoExtension()
