"""Reading and writing at a place in a file, from several threads at once where the system can."""

from __future__ import annotations

import io
import os
import threading

__all__ = ["SharedFile", "write_at"]

READ_BYTES = 2**24
"""How many bytes are read at a time: a turn is short, and macOS reads no 2 GB at once."""


class SharedFile(io.FileIO):
    """An open file that threads read from at once; where there is no preadv (Windows) they take turns at each file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, "r", opener=_without_waiting)
        self._turn = threading.Lock()

    def read_at(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from byte `offset` on; returns how many bytes there were, fewer only at the file's end."""
        done = 0
        while done < len(buffer):
            count = self._read_part(buffer[done : done + READ_BYTES], offset + done)
            if not count:
                break
            done += count
        return done

    def _read_part(self, buffer: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.fileno(), [buffer], offset)
        with self._turn:
            self.seek(offset)
            return self.readinto(buffer) or 0


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at byte `offset`; one thread of a file at a time."""
    rest = memoryview(data)
    while rest:
        if hasattr(os, "pwrite"):
            count = os.pwrite(fd, rest, offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            count = os.write(fd, rest)
        rest, offset = rest[count:], offset + count


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
