"""What can go wrong, as a small tree.

    LycoError                 everything this package raises about a person's input
    ├── FileError             not a safetensors file, damaged, or cannot be read or written
    │   └── OutputError       written whole, but the system refused it its name
    ├── FormatError           no key in it is spelled in a way that we know
    ├── AdapterError          the tensors of a module do not make an adapter
    ├── ArchitectureError     the model family is unknown, ambiguous or not supported
    ├── PlacementError        modules without a place in the model, or of another shape
    ├── SelectionError        a pattern that is none, matches nothing, or leaves nothing
    ├── MergeError            weights of a kind that nothing can be merged into, or a result out of range
    └── TrainError            an option out of range, nothing to train, or a state that belongs to another training

Every message is one line: the file, the module or key, what was expected, what was found,
what to do. The inside of the package knows modules and keys, the outside knows the file:
`about_file` adds its name on the way out.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "AdapterError",
    "ArchitectureError",
    "FileError",
    "FormatError",
    "LycoError",
    "MergeError",
    "OutputError",
    "PlacementError",
    "SelectionError",
    "TrainError",
    "about_file",
    "clipped",
    "one_line",
    "shorten",
]


class LycoError(Exception):
    """Bad input, in one line that a person can act on."""

    # ComfyUI shows an error's module before its name; that of a pack is the path of its folder.
    __module__ = "lyco"

    file: str | None = None

    def __init_subclass__(cls) -> None:
        cls.__module__ = "lyco"

    def __str__(self) -> str:
        message = _bounded(super().__str__(), 2000)
        return f"{_bounded(self.file, 300)}: {message}" if self.file else message


class FileError(LycoError):
    """The file is not safetensors, is damaged, or cannot be read or written."""


class OutputError(FileError):
    """A file is written whole, but the system refused it its name; `kept` is where it is."""

    def __init__(self, message: str, kept: Path) -> None:
        super().__init__(message)
        self.kept = kept


class FormatError(LycoError):
    """The file's keys belong to no format that is known here."""


class AdapterError(LycoError):
    """A module's tensors do not make an adapter: one is missing, or shapes cannot multiply."""


class ArchitectureError(LycoError):
    """The model family cannot be told, or is not supported."""


class PlacementError(LycoError):
    """Modules have no place in the model, or their shapes differ from its weights."""


class SelectionError(LycoError):
    """A pattern is no regular expression, matches no module, or leaves none."""


class MergeError(LycoError):
    """Weights of a kind that cannot be merged into, or a result that its dtype cannot hold."""


class TrainError(LycoError):
    """An option out of range, nothing to train, or a state that belongs to another training."""


@contextmanager
def about_file(path: str | os.PathLike[str]) -> Generator[None]:
    """Name `path` in every `LycoError` that leaves the block and names no file yet."""
    try:
        yield
    except LycoError as error:
        if error.file is None:
            error.file = os.path.basename(os.fspath(path))
        raise


def one_line(text: str) -> str:
    """`text` with control characters escaped: names in a file come from strangers."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _bounded(text: str, longest: int) -> str:
    """In one line, clipped before, for speed, and after: an escape has up to ten characters."""
    return clipped(one_line(clipped(text, longest)), longest)


def clipped(text: str, longest: int = 2000) -> str:
    """`text` without its middle, if it is longer than that: names in a file can have megabytes."""
    return text if len(text) <= longest else f"{text[: longest // 2]} … {text[-longest // 2 :]}"


def shorten(names: list[str], limit: int = 3) -> str:
    """The first few of `names`, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
