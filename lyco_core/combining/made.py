"""The modules of a result as they are made: some megabytes of them in memory, the others on the disk."""

from __future__ import annotations

import dataclasses
import os

from ..errors import LycoError, Remedy, about_file
from ..io.spool import Spool
from ..scratch import trim
from ..text import size_text
from .result import Combined

__all__ = ["Made"]

IN_MEMORY = 2**25
"""Bytes of numbers that are in memory before they go to the disk, all at once."""

MOST_EXACT = 10**10
"""Bytes of an exact sum: what takes more has lost its low rank, and is no adapter that anybody wants."""


class Made:
    """What is made so far.

    Args:
        output: what it will be written into, in the same folder.
    """

    def __init__(self, spool: Spool, output: str | os.PathLike[str]) -> None:
        self.modules: list[Combined] = []
        self._spool, self._output = spool, output
        self._bytes = 0
        self._on_disk = 0
        """How many of the modules."""
        self._in_memory = 0
        """How many bytes of the others."""

    def add(self, module: Combined) -> None:
        """Add a module.

        Raises:
            FileError: the disk has no room for it.
            LycoError: all together are more than an adapter.
        """
        size = sum(tensor.nbytes for tensor in module.adapter.tensors.values())
        self._bytes += size
        self._in_memory += size
        if self._bytes > MOST_EXACT:
            raise LycoError(
                f"the exact sum takes more than {size_text(MOST_EXACT)}; say how small it is to be", Remedy.SMALLNESS
            )
        self.modules.append(module)
        if self._in_memory > IN_MEMORY:
            with about_file(self._output):
                self._move()
            trim()

    def _move(self) -> None:
        """Move to the disk what is not there yet."""
        waiting = self.modules[self._on_disk :]
        moved = iter(self._spool.moved([t for module in waiting for t in module.adapter.tensors.values()]))
        for number, module in enumerate(waiting, self._on_disk):
            tensors = {name: next(moved) for name in module.adapter.tensors}
            self.modules[number] = dataclasses.replace(module, adapter=module.adapter.with_tensors(tensors))
        self._on_disk, self._in_memory = len(self.modules), 0
