"""A file that gets its name once it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time

from .hidden import HEAD_BYTES, hidden_name, hold
from .positional import write_at

__all__ = ["NewFile"]

WRITE_BYTES = 2**18
"""How many bytes are written at a time; halves the system's time of writing gigabytes, against writes of 16 MB."""

WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds between tries to give a file its name: an indexer or a scanner lets go of one soon."""

_MAPPED = 1224
"""Windows' ERROR_USER_MAPPED_FILE, which Python knows no kind of error for."""


class NewFile:
    """A file that has no name until `publish` gives it `path`.

    Where the disk knows nameless files (Linux, mostly) nothing is left of one whose process is killed; elsewhere
    it is a hidden file beside `path`, removed by `discard`, or by the next write into the folder.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = os.path.dirname(os.path.abspath(path))
        self.hidden = os.path.join(self._folder, hidden_name())
        self._named = False
        self._head = b""
        self._turn = threading.Lock()
        self.fd = self._open()

    def _open(self) -> int:
        if _names_nameless(self._folder, self.hidden):
            return os.open(self._folder, os.O_TMPFILE | os.O_RDWR, 0o666)
        fd = os.open(self.hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._named = True
        hold(fd)
        return fd

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at byte `offset`; threads take turns. What begins the file is written by `settle`.

        Linux has one writer of a file at a time and lets the others spin, so waiting is cheaper. Of
        large writes it makes large pages, which are seldom free and warm.
        """
        view = memoryview(data)
        with self._turn:
            if offset == 0:
                self._head, view, offset = bytes(view[:HEAD_BYTES]), view[HEAD_BYTES:], HEAD_BYTES
            for start in range(0, len(view), WRITE_BYTES):
                write_at(self.fd, view[start : start + WRITE_BYTES], offset + start)
        if hasattr(os, "posix_fadvise"):
            # Linux begins to write such pages out, so that `settle` finds little left to wait for.
            os.posix_fadvise(self.fd, offset, len(view), os.POSIX_FADV_DONTNEED)

    def settle(self) -> None:
        """Make it whole, and wait until all of it is on the disk."""
        write_at(self.fd, self._head, 0)
        os.fsync(self.fd)

    def publish(self) -> None:
        """Give it its name, replacing what is there."""
        self._show()
        _rename(self.hidden, self.path)
        self._named = False

    def keep(self) -> None:
        """Leave it as the hidden file, whole."""
        self._show()
        os.stat(self.hidden)
        self._named = False

    def discard(self) -> None:
        """Remove what has neither been published nor kept."""
        self._close()
        if self._named:
            with contextlib.suppress(OSError):
                os.unlink(self.hidden)

    def _show(self) -> None:
        """Make it the hidden file, and let go of it."""
        if not self._named:
            _link(self.fd, self.hidden)
            self._named = True
        self._close()

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _names_nameless(folder: str, hidden: str) -> bool:
    """Whether the disk gives a nameless file a name: some (of networks, FUSE) make one, and refuse it at the end."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return False
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except OSError:  # the disk, or the kernel, does not know it
        return False
    try:
        _link(fd, hidden)
        os.unlink(hidden)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _link(fd: int, name: str) -> None:
    # With a directory given, link() follows /proc's link to the nameless file.
    os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=fd, follow_symlinks=True)


def _rename(old: str, new: str) -> None:
    for wait in WAITS:
        try:
            return os.replace(old, new)
        except OSError as error:
            if not _may_pass(error):
                raise
        time.sleep(wait)
    return os.replace(old, new)


def _may_pass(error: OSError) -> bool:
    """Whether another program may be the reason: on Windows one that has the old or the new file open."""
    held = isinstance(error, PermissionError) or error.errno == errno.EBUSY
    return held or getattr(error, "winerror", None) == _MAPPED
