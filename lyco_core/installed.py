"""Where the node pack lies among ComfyUI's own folders, and what goes wrong there."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

__all__ = ["counted_once", "packs_in", "unserved"]

_SERVED = "!$&'()*+,;=:@"
"""Besides letters, digits and `-._~`: what a folder's name may have that ComfyUI's server, aiohttp, finds files in."""


def unserved(pack: Path) -> str | None:
    """Why ComfyUI shows neither cards nor help nor templates of a pack in this folder; None if it shows them."""
    odd = "".join(dict.fromkeys(letter for letter in pack.name if quote(letter, safe=_SERVED) != letter))
    if not odd:
        return None
    named = "a space" if odd == " " else f"“{odd}”"
    return (
        f"{pack}: ComfyUI's server finds no files in a folder with {named} in its name, so there are no cards, help "
        "pages or templates; rename the folder, to comfyui-lyco for example, and start ComfyUI anew"
    )


def counted_once(counts: Path, other: Path) -> str:
    """What to do about two copies of the pack in one ComfyUI."""
    return (
        f"this pack is there twice: {counts} counts, and {other}, which ComfyUI came to later, gives neither nodes nor "
        "cards; remove the one that you do not want, and start ComfyUI anew"
    )


def packs_in(comfyui: Path) -> list[Path]:
    """The copies of the pack in a ComfyUI, by name, without those that are switched off."""
    found = (path.parents[1] for path in comfyui.glob("custom_nodes/*/nodes/headless.py"))
    return sorted(pack for pack in found if (pack / "lyco_core").is_dir() and pack.suffix != ".disabled")
