"""The files that one training left in models/loras: NAME-000001, NAME-step00000500 and the like, and NAME, the last."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ....lyco_core.errors import FileError, SelectionError
from ....lyco_core.text import shorten
from ..files import adapter_names
from .number_lists import numbers_of

THIS, ALL = "this file", "all of its training"
FILES = (THIS, ALL)
"""Which files are tried."""

LAST = "last"
"""What `only` calls the file without a number."""

_ENDINGS = (
    r"-(\d{6})",  # sd-scripts and Musubi Tuner, by epochs
    r"-e(\d+)",
    r"-step(\d{8})",  # sd-scripts and Musubi Tuner, by steps
    r"_(\d{9})",  # AI Toolkit, by steps
)
"""What stands between a training's name and the ending of a file: epochs come before steps, each by its number."""


class TrainingFile(NamedTuple):
    """One file of a training; they sort as they were saved."""

    is_last: bool
    kind: int
    """Which of `_ENDINGS`."""
    number: int
    """Of its epoch or step; -1 for the last file, which has none."""
    name: str
    """In models/loras."""


def files_to_try(name: str, files: str, only: str) -> list[str]:
    """The names in models/loras that a person means by the inputs `adapter`, `files` (one of `FILES`) and `only`.

    Raises:
        SelectionError: `only` is no list of numbers, or it is not empty and `files` is `THIS`.
        FileError: the training has no file of a number in `only`.
    """
    if files == THIS:
        if only.strip():
            raise SelectionError(f"only: chooses among a training's files; set files to {ALL}, or leave it empty")
        return [name]
    found = files_of_training(name, adapter_names())
    return [file.name for file in (_chosen(name, found, only) if only.strip() else found)]


def files_of_training(name: str, among: list[str]) -> list[TrainingFile]:
    """The file `name` and all others of its training, in order, the last file last."""
    wanted = _parted(name)[0]
    parted = ((other, *_parted(other)) for other in {name, *among})
    return sorted(
        TrainingFile(number < 0, kind, number, other) for other, training, kind, number in parted if training == wanted
    )


def _parted(name: str) -> tuple[tuple[str, str], int, int]:
    """A file's training (its name with the folder, and the ending), its kind, and its number."""
    stem, ending = os.path.splitext(name)
    for kind, pattern in enumerate(_ENDINGS):
        if match := re.fullmatch(f"(.*[^/\\\\]){pattern}", stem, re.DOTALL | re.ASCII):
            return (match[1], ending), kind, int(match[2])
    return (stem, ending), len(_ENDINGS), -1


def _chosen(name: str, found: list[TrainingFile], only: str) -> list[TrainingFile]:
    """Those of a training's files that a list of numbers names, and the last one for the word `LAST`."""
    pieces = [piece.strip() for piece in only.split(",")]
    numbered = ",".join(piece for piece in pieces if piece != LAST)
    wanted = [f"{number:f}" for number in numbers_of("only", numbered, 10**9)] if numbered else []
    wanted += [LAST] if LAST in pieces else []
    known = dict.fromkeys(map(_called, found))
    if missing := [number for number in wanted if number not in known]:
        raise FileError(f"only: the training of {name} has no file {shorten(missing)}; it has {shorten([*known], 20)}")
    return [file for file in found if _called(file) in wanted]


def _called(file: TrainingFile) -> str:
    return LAST if file.is_last else str(file.number)
