"""Files that appear under their names whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from ..errors import FileError, about_file
from .positional import write_at

__all__ = [
    "NewFile",
    "is_same_file",
    "make_folder_of",
    "new_files",
    "refuse_existing",
    "refuse_inputs",
    "require_space",
]

WRITE_BYTES = 2**18
"""At a time; halves the system's time of writing gigabytes, measured against writes of 16 MB."""


class NewFile:
    """A file that has no name until `publish` gives it `path`.

    Where the system knows nameless files (Linux, on most file systems) nothing is left of one
    whose process is killed; elsewhere it is a hidden file beside `path`, removed by `discard`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder, name = os.path.split(os.path.abspath(path))
        self._hidden = os.path.join(self._folder, f".{name[:100]}.{secrets.token_hex(4)}.tmp")
        self._named = False
        self._turn = threading.Lock()
        self.fd = self._open()

    def _open(self) -> int:
        if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the file system, or the kernel, does not know it
                return os.open(self._folder, os.O_TMPFILE | os.O_RDWR, 0o666)
        self._named = True
        return os.open(self._hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at byte `offset`; threads take turns.

        Linux has one writer of a file at a time and lets the others spin, so waiting is cheaper. Of
        large writes it makes large pages, which are seldom free and warm.
        """
        view = memoryview(data)
        with self._turn:
            for start in range(0, len(view), WRITE_BYTES):
                write_at(self.fd, view[start : start + WRITE_BYTES], offset + start)
        if hasattr(os, "posix_fadvise"):
            # Linux begins to write such pages out, so that `settle` finds little left to wait for.
            os.posix_fadvise(self.fd, offset, len(view), os.POSIX_FADV_DONTNEED)

    def settle(self) -> None:
        """Wait until everything that is written so far is on the disk."""
        os.fsync(self.fd)

    def publish(self) -> None:
        """Give it its name, replacing what is there."""
        if not self._named:
            # With a directory given, link() follows /proc's link to the nameless file.
            os.link(f"/proc/self/fd/{self.fd}", self._hidden, src_dir_fd=self.fd, follow_symlinks=True)
            self._named = True
        self._close()
        os.replace(self._hidden, self.path)
        self._named = False

    def discard(self) -> None:
        """Remove what has not been published."""
        self._close()
        if self._named:
            with contextlib.suppress(OSError):
                os.unlink(self._hidden)

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextmanager
def new_files(paths: Sequence[str | os.PathLike[str]], *, overwrite: bool = False) -> Generator[list[NewFile]]:
    """New files for the block to write; published together at its end, in order, or none of them.

    Raises:
        FileError: one is there already, or cannot be written; nothing is left behind.
    """
    names = [os.fspath(path) for path in paths]
    for name in names:
        with about_file(name):
            refuse_existing(name, overwrite=overwrite)
    files: list[NewFile] = []
    with about_file(names[0]):
        try:
            files += (NewFile(name) for name in names)
            yield files
            for file in files:
                file.settle()
            for file in files:
                file.publish()
        except OSError as error:
            raise FileError(f"cannot be written: {_reason(error)}; nothing is left of it") from None
        finally:
            for file in files:
                file.discard()


def make_folder_of(path: str | os.PathLike[str]) -> None:
    """Make the folder of a new file, if it is not there; raises `FileError` where that cannot be."""
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    except OSError as error:
        raise FileError(f"its folder cannot be made: {error.strerror}") from None


def require_space(path: str | os.PathLike[str], size: int) -> None:
    """Raise `FileError` if `size` bytes more do not fit on the disk of `path`."""
    folder = os.path.dirname(os.path.abspath(path))
    with about_file(path):
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise FileError(f"cannot be written: {error.strerror}: {folder}") from None
        if size > free:
            raise FileError(
                f"takes {size / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB left; free some, or write elsewhere"
            )


def refuse_existing(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise `FileError` unless a file may be written at `path`."""
    if not os.fspath(path):
        raise FileError("the output has no name; give it one")
    if "\0" in os.fspath(path):
        raise FileError("has a zero byte in its name; give it another")
    if os.path.isdir(path):
        raise FileError("is a folder; give the name of a file")
    if os.path.lexists(path) and not overwrite:
        raise FileError("is there already; choose another name, or ask for it to be overwritten")


def is_same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether both names are those of one file; not if either is of none."""
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):  # ValueError: a name with a zero byte; whoever opens the file says what is wrong
        return False


def refuse_inputs(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Raise `FileError` if `path` is one of the files that are read, by whatever name or link."""
    for name in inputs:
        if is_same_file(path, name):
            with about_file(path):
                raise FileError(f"is {os.path.basename(name)}, which is read; choose another name for the output")


def _reason(error: OSError) -> str:
    return "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
