"""What was made of the last files that the page asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from ....lyco_core.errors import FileError, LycoError
from ..files import Stamp, identity

T = TypeVar("T")


class Kept(Generic[T]):
    """What was made of each of the last files, or why nothing could be, until the file is another."""

    def __init__(self, most: int) -> None:
        """`most`: how many are kept."""
        self._most = most
        self._made: OrderedDict[Stamp, T | str] = OrderedDict()

    def of(self, name: str, make: Callable[[], T]) -> T | str:
        """What `make` makes of the file `name` in models/loras, or the text of the `LycoError` in its way."""
        try:
            found = identity(name)
        except LycoError as error:
            return str(error)
        except OSError as error:  # it went away since it was listed
            return str(LycoError(f"{name}: cannot be read: {error.strerror}"))
        if found not in self._made:
            try:
                self._made[found] = make()
            except FileError as error:  # of a disk that is away for a moment too
                return str(error)
            except LycoError as error:
                self._made[found] = str(error)
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        self._made.move_to_end(found)
        return self._made[found]
