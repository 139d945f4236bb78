"""What matched, as the web extension draws it: a bar by block, and what was left out and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from ....lyco_core.adapters import shape_text
from ....lyco_core.blocks import Blocks, by_block
from ....lyco_core.text import one_line
from ..model.loading import Applied
from ..model.matching import Match

SHOWN = 20
"""How many modules that were left out are named at most."""


class MatchSummary(TypedDict):
    """What matched of a file, in plain types."""

    file: str
    architecture: str | None
    matched: int
    modules: int
    stock: int
    """How many weights ComfyUI's own adapters change."""
    blocks: list[Blocks]
    left_out: list[dict[str, str]]
    left_out_count: int
    applied: str
    """How it was applied, in a few words."""


def match_ui(applied: Iterable[Applied]) -> dict[str, list[MatchSummary]]:
    """What matched of each file, for a node's `ui` output."""
    return {"lyco_match": [_summary(*one) for one in applied]}


def _summary(match: Match, how: str) -> MatchSummary:
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
        "applied": how,
    }


def _left_out(match: Match) -> list[dict[str, str]]:
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
