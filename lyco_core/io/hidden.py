"""The hidden files that are written where nameless ones are not known, and what a killed write leaves of them.

Such a file begins with zeros until all of it is written, and its process holds it. So what is unfinished and
held by nobody can be told from what is in use, and from a whole file that waits for its name.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import sys
import zlib

__all__ = ["AROUND", "HEAD_BYTES", "clear_leftovers", "hidden_name", "hold"]

HEAD_BYTES = 8
"""How many bytes at the beginning are written last. No file that is written here begins with so many zeros."""

_HOST = f"{zlib.crc32(platform.node().encode()):08x}"[:4]
"""In the name, since another computer's hold on a file of a shared disk may not be seen from here."""

AROUND = f".lyco-{_HOST}-", ".tmp"
"""What a hidden file's name begins and ends with."""

_OURS = re.compile(rf"{re.escape(AROUND[0])}[0-9a-z_]{{8}}{re.escape(AROUND[1])}")
"""Eight letters between: ours, or those of Python's `tempfile`."""


def hidden_name() -> str:
    """A new name for a hidden file, short whatever the file will be called."""
    return f"{AROUND[0]}{secrets.token_hex(4)}{AROUND[1]}"


if sys.platform == "win32":

    def hold(fd: int) -> bool:
        """Keep an open file from being cleared; here the system does: what is open cannot be removed."""
        return True

else:
    import fcntl

    def hold(fd: int) -> bool:
        """Keep an open file from being cleared until it is closed; False if another holds it, or it has no locks."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def clear_leftovers(folder: str) -> None:
    """Remove what killed writes left in `folder`; what cannot be looked at or removed is left."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    if _is_left(entry.path):
                        os.unlink(entry.path)


def _is_left(path: str) -> bool:
    """Whether it is unfinished and nobody's. Before the first byte is written a file may not be held yet."""
    fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0))
    try:
        return hold(fd) and os.fstat(fd).st_size > 0 and not any(os.read(fd, HEAD_BYTES))
    finally:
        os.close(fd)
