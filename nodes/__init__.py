"""ComfyUI nodes: one file a node, the room `host` beneath them.

Of ComfyUI nothing is imported before `node_classes` is called.
"""

from importlib import import_module
from typing import Any

NODES = (
    "load_adapter",
    "load_adapters",
    "try_adapter",
    "labeled_grid",
    "create_hook",
    "merge_adapter",
    "merge_checkpoint",
    "convert_adapter",
    "combine_adapters",
    "extract_adapter",
    "resize_adapter",
    "training_dataset",
    "train_adapter",
    "inspect_adapter",
    "compare_adapters",
)
"""The file of each node; its class has the same name, in the other spelling."""


def class_name(node: str) -> str:
    """`LoadAdapter` of `load_adapter`; the id that workflows know is this behind `Lyco`."""
    return "".join(word.capitalize() for word in node.split("_"))


def node_classes() -> list[type[Any]]:
    """All nodes, as ComfyUI takes them."""
    return [getattr(import_module(f".{node}", __name__), class_name(node)) for node in NODES]
