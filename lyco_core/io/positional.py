"""Reading and writing at a place in a file, from several threads at once where the system can."""

from __future__ import annotations

import os
import threading

__all__ = ["read_at", "write_at"]

_turn = threading.Lock()
"""For systems without pread and pwrite (Windows), where a file has one position for all."""


def read_at(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer` from byte `offset` on; how many bytes there were, fewer only at the file's end."""
    done = 0
    while done < len(buffer):
        if hasattr(os, "preadv"):
            count = os.preadv(fd, [buffer[done:]], offset + done)
        else:
            with _turn:
                os.lseek(fd, offset + done, os.SEEK_SET)
                data = os.read(fd, len(buffer) - done)
            count = len(data)
            buffer[done : done + count] = data
        if not count:
            break
        done += count
    return done


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at byte `offset`."""
    rest = memoryview(data)
    while rest:
        if hasattr(os, "pwrite"):
            count = os.pwrite(fd, rest, offset)
        else:
            with _turn:
                os.lseek(fd, offset, os.SEEK_SET)
                count = os.write(fd, rest)
        rest, offset = rest[count:], offset + count
