"""Files that appear under their names whole, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import FileError, OutputError, Remedy, about_file
from ..text import size_text
from .hidden import clear_leftovers
from .names import check_name
from .new_file import NewFile

__all__ = [
    "NewFile",
    "is_same_file",
    "make_folder_of",
    "new_files",
    "reason_of",
    "refuse_existing",
    "refuse_inputs",
    "require_space",
]


_TOO_LONG = (3, 206)
"""What Windows says of a path of more than 260 characters: ERROR_PATH_NOT_FOUND, ERROR_FILENAME_EXCED_RANGE."""


@contextmanager
def new_files(paths: Sequence[str | os.PathLike[str]], *, overwrite: bool = False) -> Generator[list[NewFile]]:
    """New files for the block to write; published together at its end, in order, or none of them.

    Raises:
        OutputError: one could not be given its name; the files that are left are kept whole, and named.
        FileError: one is there already, or cannot be written; nothing is left behind.
    """
    names = [os.fspath(path) for path in paths]
    for name in names:
        with about_file(name):
            refuse_existing(name, overwrite=overwrite)
    for folder in {os.path.dirname(os.path.abspath(name)) for name in names}:
        clear_leftovers(folder)
    files: list[NewFile] = []
    with about_file(names[0]):
        try:
            files += (NewFile(name) for name in names)
            yield files
            for file in files:
                file.settle()
            _publish(files)
        except OSError as error:
            raise FileError(f"cannot be written: {reason_of(error)}; nothing is left of it") from None
        finally:
            for file in files:
                file.discard()


def make_folder_of(path: str | os.PathLike[str]) -> None:
    """Make the folder of a new file, if it is not there; raises `FileError` where that cannot be."""
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    except OSError as error:
        raise FileError(f"its folder cannot be made: {error.strerror}") from None


def _publish(files: Sequence[NewFile]) -> None:
    for number, file in enumerate(files):
        try:
            file.publish()
        except (OSError, KeyboardInterrupt) as error:  # who does not wait for a try to succeed loses nothing either
            raise _kept(files[number:], error) from None


def _kept(files: Sequence[NewFile], error: OSError | KeyboardInterrupt) -> OutputError:
    for file in files:
        file.keep()
    names = [(os.path.basename(file.hidden), os.path.basename(file.path)) for file in files]
    reason = reason_of(error) if isinstance(error, OSError) else "interrupted"
    kept = OutputError(
        f"cannot be given its name ({reason}); does another program have it open? All of it is kept in "
        f"{os.path.dirname(files[0].hidden)}; rename {', '.join(f'{hidden} to {name}' for hidden, name in names)}",
        Path(files[0].hidden),
    )
    kept.file = names[0][1]
    return kept


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
                f"takes {size_text(size)}, the disk has {size_text(free)} left; free some, or write elsewhere"
            )


def refuse_existing(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise `FileError` unless a file may be written at `path`: asked before the work, which would be lost."""
    path = os.fspath(path)
    if not path:
        raise FileError("the output has no name; give it one")
    if "\0" in os.fspath(path):
        raise FileError("has a zero byte in its name; give it another")
    if os.path.isdir(path):
        raise FileError("is a folder; give the name of a file")
    folder, name = os.path.split(os.path.abspath(path))
    check_name(name, folder)
    if os.path.lexists(path) and not overwrite:
        raise FileError("is there already", Remedy.OVERWRITE)
    if not os.path.isdir(folder):
        raise FileError(f"there is no folder {folder} to write it into; make it, or name another")
    if _is_too_long(path):  # the hidden file's may not be
        size = len(os.path.abspath(path))
        raise FileError(
            f"its path of {size} characters is longer than this system takes; name a folder of a shorter one"
        )
    try:
        NewFile(path).discard()
    except OSError as error:
        raise FileError(f"cannot be written: {reason_of(error)}: {folder}") from None


def _is_too_long(path: str) -> bool:
    """Whether the system takes no such path, though its folder is there."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG or getattr(error, "winerror", None) in _TOO_LONG
    return False


def is_same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether both names are those of one file; False if either is the name of none."""
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


def reason_of(error: OSError) -> str:
    """What the system says, in words that a person knows."""
    return "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
