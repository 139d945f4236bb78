"""Comparisons of files in models/loras."""

from __future__ import annotations

from ....lyco_core.comparing import compare_files
from ....lyco_core.errors import LycoError
from ....lyco_core.merging import Source
from ..files import NONE, adapter_path
from ..model.many import Row
from ..progress import Progress
from .model_files import checkpoint_path


def compare(rows: list[Row], base: str) -> str:
    """What is to be said of the two files. Raises `LycoError` if they are not two, or not of one family."""
    used = [row for row in rows if row.takes_part]
    if len(used) != 2:
        raise LycoError(f"two adapters are compared, and {len(used)} are on; choose a file in each row")
    first, second = (Source(adapter_path(row.name), row.strength) for row in used)
    checkpoint = None if base == NONE else checkpoint_path(base)
    return "\n".join(compare_files(first, second, base=checkpoint, progress=Progress()).lines())
