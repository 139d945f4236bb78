"""comfyui-lyco: LoHa and LoKr adapters in ComfyUI, exactly, or with an error that says why.

ComfyUI imports this folder and awaits `comfy_entrypoint`. Nothing of ComfyUI is imported before
that, so that tools may import the folder without it.
"""

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    """The pack's nodes, for ComfyUI's V3 node API."""
    from comfy_api.latest import ComfyExtension
    from server import PromptServer

    from .nodes import node_classes
    from .nodes.host.page.route import add_routes

    if (server := getattr(PromptServer, "instance", None)) is not None:
        add_routes(server)

    class LycoExtension(ComfyExtension):
        async def get_node_list(self):
            return node_classes()

    return LycoExtension()
