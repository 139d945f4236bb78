"""What the pack says in each language, and what it has to say: everything that a server tells of its nodes."""

import json
from typing import Any

from lyco_testing.comfy import ROOT
from lyco_testing.nodes import inputs_of, told

LOCALES = ROOT / "locales"


def english(object_info: dict[str, Any]) -> dict[str, Any]:
    """nodeDefs.json as the schemas have it, from a server's /object_info."""
    return {name: _node(info) for name, info in told(object_info).items()}


def _node(info: dict[str, Any]) -> dict[str, Any]:
    inputs = {name: _slot(name, options) for name, options in inputs_of(info).items()}
    tips = info["output_tooltips"]
    outputs = {str(i): _slot(name, {"tooltip": tips[i]}) for i, name in enumerate(info["output_name"])}
    titles = {"display_name": info["display_name"], "description": info["description"]}
    return titles | {"inputs": inputs, "outputs": outputs}


def _slot(name: str, options: dict[str, Any]) -> dict[str, str]:
    tip = options.get("tooltip")
    return {"name": options.get("display_name") or name} | ({"tooltip": tip} if tip else {})


def read(language: str, name: str = "nodeDefs") -> dict[str, Any]:
    """A file of locales/."""
    return json.loads((LOCALES / language / f"{name}.json").read_text("utf-8"))
