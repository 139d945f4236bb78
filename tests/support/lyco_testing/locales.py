"""What the pack says in each language, and what it has to say: everything that a server tells of its nodes."""

import json
from typing import Any

from lyco_testing.comfy import ROOT

LOCALES = ROOT / "locales"


def english(object_info: dict[str, Any]) -> dict[str, Any]:
    """nodeDefs.json as the schemas have it, from a server's /object_info."""
    return {name: _node(info) for name, info in object_info.items() if name.startswith("Lyco")}


def _node(info: dict[str, Any]) -> dict[str, Any]:
    shown = {name: spec for part in ("required", "optional") for name, spec in info["input"].get(part, {}).items()}
    inputs = {name: _slot(name, spec[1] if len(spec) > 1 else {}) for name, spec in shown.items()}
    tips = info["output_tooltips"]
    outputs = {str(i): _slot(name, {"tooltip": tips[i]}) for i, name in enumerate(info["output_name"])}
    told = {"display_name": info["display_name"], "description": info["description"]}
    return told | {"inputs": inputs, "outputs": outputs}


def _slot(name: str, options: dict[str, Any]) -> dict[str, str]:
    tip = options.get("tooltip")
    return {"name": options.get("display_name") or name} | ({"tooltip": tip} if tip else {})


def read(language: str, name: str = "nodeDefs") -> dict[str, Any]:
    """A file of locales/."""
    return json.loads((LOCALES / language / f"{name}.json").read_text("utf-8"))
