"""What matched, as the web extension draws it: a bar by block, and what was left out and why."""

from __future__ import annotations

from ....lyco_core.adapters import shape_text
from ....lyco_core.blocks import by_block
from ....lyco_core.errors import one_line

SHOWN = 20
"""So many modules that were left out are named."""


def matched(match, *, applied: str) -> dict:
    """Plain types for a node's `ui` output.

    Args:
        match: a `loading.Match`.
        applied: how, in a few words.
    """
    found, rest = match.placement.adapter_set, match.rest
    taken = {placed.module_path for placed in match.placement.placed} | rest.modules
    family = found.architecture
    left = _left_out(match)
    return {
        "file": match.name,
        "architecture": family.title if family else None,
        "matched": len(taken),
        "modules": len(found.adapters),
        "stock": len(rest.stock),
        "blocks": by_block(found.adapters, taken),
        "left_out": left[:SHOWN],
        "left_out_count": len(left),
        "applied": applied,
    }


def _left_out(match) -> list[dict[str, str]]:
    """Each module or key that has no place, and why: `missing`, `shape` with both shapes, or `unknown`."""
    found, rest = match.placement.adapter_set, match.rest
    missing = [{"name": found.prefixes[path], "why": "missing"} for path in match.placement.homeless]
    misfits = [
        {
            "name": found.prefixes[misfit.module_path],
            "why": "shape",
            "expected": str(list(misfit.expected)),
            "found": shape_text(misfit.found),
        }
        for misfit in match.placement.misfits
    ]
    placed_after_all = {found.prefixes[path] for path in rest.modules}
    unread = [{"name": key, "why": "unknown"} for key in rest.unread]
    left = [entry for entry in [*missing, *misfits] if entry["name"] not in placed_after_all] + unread
    return [entry | {"name": one_line(entry["name"][:200])} for entry in left]
