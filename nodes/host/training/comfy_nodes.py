"""ComfyUI's own nodes, called as functions: those of its newer kind, and of its older."""

from __future__ import annotations

from typing import Any


def run_node(node: Any, **inputs: Any) -> Any:
    """The outputs of a node's class, by their numbers."""
    run = node.execute if hasattr(node, "execute") else getattr(node(), node.FUNCTION)
    return run(**inputs)
