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
`about_file` adds its name on the way out. Where the person has options that go by other names
than ours, what to do is a `Remedy`, which `advising` puts into the words of a command or a node.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from .text import clipped, one_line

__all__ = [
    "AdapterError",
    "ArchitectureError",
    "FileError",
    "FormatError",
    "LycoError",
    "MergeError",
    "OutputError",
    "PlacementError",
    "Remedy",
    "SelectionError",
    "TrainError",
    "about_file",
    "advising",
]


class Remedy(Enum):
    """What to do about an error where every place says it otherwise; the value is for whoever calls from Python.

    `{}` stands for the error's subject.
    """

    WIDER_DTYPE = "store it in bfloat16"
    OWN_DTYPE = "keep the base's dtypes"
    PROCESSOR = "use the processor"
    ARCHITECTURE = "say which architecture is meant, or load it onto a model"
    AS_LORA = "convert it as LoRA"
    RANK = "give a rank"
    LAYOUT = "convert to {}"
    OTHER_LAYOUT = "they have a place in {}"
    UNMERGED = (
        "merge into the bf16, fp16 or fp8 checkpoint that it was made from and quantize the result, or apply the "
        "adapter without merging it"
    )
    LEAVE_OUT = "take the rest alone, or exclude these: {}"
    EXCLUDE = "leave these out by a selection that excludes {}"
    OVERWRITE = "choose another name, or pass overwrite=True"
    SMALLNESS = "give a rank, an energy or a largest error"
    AGAIN = "call it again to go on{}"
    OPTIONS = "answered() tells why of each"
    AS_IT_IS = "leave the dtype as it is"
    BASE = "give the base, the checkpoint that they were trained on"
    APPLY = "load it onto the model, or merge it"
    MODEL = "give the checkpoint that it was trained on as model"
    UNQUANTIZED = "leave quantize out"


class LycoError(Exception):
    """Bad input, in one line that a person can act on.

    Args:
        message: what is wrong; what to do as well, unless there is a `remedy`.
        subject: what the remedy is about.
    """

    # ComfyUI shows an error's module before its name; that of a pack is the path of its folder.
    __module__ = "lyco"

    file: str | None = None
    advice: Mapping[Remedy, str] | None = None
    """The words of the place where the person is."""

    def __init__(self, message: str = "", remedy: Remedy | None = None, subject: str = "") -> None:
        super().__init__(message)
        self.message, self.remedy, self.subject = message, remedy, subject

    def __init_subclass__(cls) -> None:
        cls.__module__ = "lyco"

    def __str__(self) -> str:
        message = _bounded(self.message, 2000)
        if self.remedy is not None:
            words = (self.advice or {}).get(self.remedy, self.remedy.value)
            message += f"; {one_line(words.replace('{}', self.subject))}"
        return f"{_bounded(self.file, 300)}: {message}" if self.file else message

    def within(self, place: str) -> LycoError:
        """A copy whose message begins with `place`, the part of something larger that the error is in."""
        return type(self)(f"{place}: {self.message}", self.remedy, self.subject)


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


@contextmanager
def advising(advice: Mapping[Remedy, str]) -> Generator[None]:
    """Let every `LycoError` that leaves the block, or the function that this decorates, say what to do in `advice`."""
    try:
        yield
    except LycoError as error:
        error.advice = error.advice or advice
        raise


def _bounded(text: str, longest: int) -> str:
    """In one line, clipped before, for speed, and after: an escape has up to ten characters."""
    return clipped(one_line(clipped(text, longest)), longest)
