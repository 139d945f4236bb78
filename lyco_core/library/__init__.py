"""Whole jobs of `import lyco_core as lyco`: each a call with plain arguments, of the room that does the work."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["Path", "Progress", "silent"]

Path = str | os.PathLike[str]
Progress = Callable[[int, int], None]
"""Called with what is done and all that there is."""


def silent(done: int, total: int) -> None:
    """The progress of a job that nobody watches."""
