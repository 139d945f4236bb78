"""LORA_STACK, by which packs hand on which adapters to load: a list of (file, strength, strength for the text encoder).

Efficiency Nodes, Comfyroll, Lora-Manager, rgthree and others make and take it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import TypeAlias

import folder_paths

from ....lyco_core.errors import LycoError
from ....lyco_core.io.paths import ENDING
from ..files import adapter_path, is_listed
from .many import Row

LoraStack: TypeAlias = list[tuple[str, float, float]]


def rows_of_stack(stack: object) -> list[Row]:
    """A row for each entry that names a file.

    Raises:
        FileError: a file is not there.
        LycoError: it is no LORA_STACK.
    """
    if not isinstance(stack, list | tuple):
        kind = type(stack).__name__
        raise LycoError(f"lora_stack is of the type {kind}, expected a list of {_ENTRY}; connect a node that makes one")
    return [row for number, entry in enumerate(stack, 1) if (row := _row(number, entry)) is not None]


_ENTRY = "(file, strength, strength for the text encoder)"


def _row(number: int, entry: object) -> Row | None:
    match entry:
        case (None | "None" | "none" | "", *_):  # what their lists offer for no file
            return None
        case (str(name), int() | float() as strength, int() | float() as clip_strength):
            if math.isfinite(strength) and math.isfinite(clip_strength):
                return Row(_listed(name), float(strength), True, float(clip_strength))
        case _:
            pass
    raise LycoError(
        f"lora_stack: entry {number} is {entry!r}, expected {_ENTRY}, of finite numbers; connect one that makes them"
    )


def _listed(name: str) -> str:
    """The name by which ComfyUI lists a file that a pack may spell as a path, with others' slashes, or no ending."""
    here = name.replace("\\", "/").replace("/", os.sep)
    folders = [os.path.join(folder, "") for folder in folder_paths.get_folder_paths("loras")]
    inside = [here.removeprefix(folder) for folder in folders if here.startswith(folder)]
    found = next((spelling for spelling in (name, here, here + ENDING, *inside) if is_listed("loras", spelling)), name)
    adapter_path(found)  # which raises what says where it was looked for
    return found


def stack_of(rows: Iterable[Row]) -> LoraStack:
    """The rows that take part, for other packs' nodes."""
    return [(row.name, row.strength, row.for_text_encoder) for row in rows if row.takes_part]
