"""ComfyUI's own nodes, called as functions: those of its newer kind, and of its older."""

from __future__ import annotations

import importlib
from typing import Any

from ....lyco_core.errors import TrainError


def comfy_node(module: str, name: str, needed: str) -> Any:
    """The class of a node. Raises `TrainError`, which says what needs it, if this ComfyUI lacks it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise TrainError(f"this ComfyUI has no node {name}, which {needed}: update it") from None


def run_node(node: Any, **inputs: Any) -> Any:
    """The outputs of a node's class, by their numbers."""
    run = node.execute if hasattr(node, "execute") else getattr(node(), node.FUNCTION)
    return run(**inputs)
