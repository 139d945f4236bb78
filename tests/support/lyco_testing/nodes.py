"""The pack's nodes: those that it has, and what a server tells of them. No list of them stands anywhere else."""

import importlib.util
from typing import Any

from lyco_testing.comfy import ROOT, Server


def node_ids() -> list[str]:
    """The ids that workflows know, of the list in nodes/__init__.py."""
    spec = importlib.util.spec_from_file_location("lyco_nodes", ROOT / "nodes" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    nodes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nodes)
    return [f"Lyco{nodes.class_name(node)}" for node in nodes.NODES]


def told(object_info: dict[str, Any]) -> dict[str, Any]:
    """The part of a server's /object_info that is about them."""
    return {name: object_info[name] for name in node_ids()}


def inputs_of(info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Input of a node -> its options, the required ones first."""
    shown = {name: spec for part in ("required", "optional") for name, spec in info["input"].get(part, {}).items()}
    return {name: spec[1] if len(spec) > 1 else {} for name, spec in shown.items()}


def adapters_of(server: Server) -> dict[str, list[str]]:
    """Node -> its inputs that choose an adapter, of which the card says what it is."""
    return {
        node: [name for name, options in inputs_of(info).items() if options.get("lyco_adapter")]
        for node, info in told(server.get("/object_info")).items()
    }
