"""`lyco inspect`: what files are, and what of them a model takes."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..console import Progress, painted
from ..errors import FileError, LycoError, PlacementError, about_file, advising
from ..text import clipped, one_line
from .common import ADVICE, Commands, add_architecture, counter, print_error

if TYPE_CHECKING:
    from ..comparing import Weighed
    from ..inspection import Inspection

__all__ = ["add"]

LONGEST = 60
"""Characters of a file's name in a table."""
LONGEST_REASON = 150
"""Characters of what is wrong with one; asked for alone, it says all."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("inspect", help="say what an adapter file is, and what of it a model takes")
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="an adapter (.safetensors), of which all is told; of several, and of those in a folder, a line each",
    )
    parser.add_argument(
        "--model", metavar="CHECKPOINT", help="a model's weights (.safetensors, .gguf): say what matches"
    )
    parser.add_argument(
        "--weights",
        action="store_true",
        help="of one file: how large its changes are, by kind of module and by block; with --model beside its weights",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; of several files, a list")
    parser.set_defaults(run=run)
    add_architecture(parser)


def run(options: argparse.Namespace) -> None:
    from ..inspection import inspect_file
    from ..io.paths import expanded, only_one

    given = expanded(options.files)
    model = options.model and only_one(options.model)
    if len(given) > 1 or os.path.isdir(given[0]):
        if options.weights:
            raise LycoError("--weights is of one file, and there are several; name one")
        _several(given, model, options)
        return
    done = inspect_file(given[0], model, architecture=options.architecture)
    if options.weights:
        _require_fit(done, model)
    weighed = _weighed(given[0], model, options) if options.weights else None
    if options.json:
        _print_json(done.as_json() | ({} if weighed is None else {"weights": weighed.as_json()}))
    else:
        _print_details(done)
        print(*([] if weighed is None else ["", *weighed.lines()]), sep="\n", end="" if weighed is None else "\n")
    _require_fit(done, model)


def _weighed(path: str, model: str | None, options: argparse.Namespace) -> Weighed:
    from ..comparing import weigh_file

    return weigh_file(path, model, architecture=options.architecture, progress=counter(path, "modules"))


def _several(given: Sequence[str], model: str | None, options: argparse.Namespace) -> None:
    """A line for each file, or one list of JSON. Raises `LycoError` if one is no adapter, or does not fit the model."""
    from ..inspection import inspect_file
    from ..model import Model

    onto = None if model is None else Model.of_file(model)
    files = [file for one in given for file in _files(one)]
    # Of each file only what is printed is kept: with their modules, thousands would take gigabytes.
    inspected: list[dict[str, Any]] = []
    rows: list[tuple[str, list[str] | str]] = []
    failed: list[str] = []
    progress = Progress("inspecting", "files")
    for number, file in enumerate(files):
        progress(number, len(files))
        try:
            with advising(ADVICE):
                done = inspect_file(file, onto, architecture=options.architecture)
                if options.json:
                    inspected.append(done.as_json())
                _require_fit(done, model)
            rows.append((file, done.columns()))
        except LycoError as error:
            failed.append(str(error))
            rows.append((file, failed[-1].removeprefix(f"{error.file}: ")))
    progress(len(files), len(files))
    if options.json:
        for error in failed:
            print_error(error)
        _print_json(inspected)
    else:
        _print_table(rows)
    if failed:
        what = "put onto the model" if model else "read as adapters"
        raise LycoError(f"{len(failed)} of {len(files)} files cannot be {what}; their lines say why")


def _files(given: str) -> list[str]:
    from ..io.paths import ENDING, files_in

    if not os.path.isdir(given):
        return [given]
    if not (found := files_in(given)):
        raise FileError(f"there is no {ENDING} file in {given}")
    return [os.path.normpath(os.path.join(given, name)) for name in found]


def _require_fit(done: Inspection, model: str | None) -> None:
    """Raise `PlacementError` if a model was named that takes nothing of the file."""
    found = done.placement
    if model is None or found is None or found.placed or not found.adapter_set.adapters:
        return
    ours, theirs, name = found.adapter_set.architecture, found.family, os.path.basename(model)
    with about_file(done.file):
        if ours and theirs and ours is not theirs:
            raise PlacementError(f"is an adapter for {ours.title}, {name} is a model of {theirs.title}")
        unknown = "" if theirs else ", a model of no known family"
        raise PlacementError(f"nothing of it has a place in {name}{unknown}")


def _print_json(found: object) -> None:
    """In ASCII alone, which a program can read whatever the terminal's code page is."""
    print(json.dumps(found, indent=2, allow_nan=False))


def _print_details(done: Inspection) -> None:
    for line in done.lines():
        label, value = line[:13], line[13:]
        print(painted(label, "bold") + value)


def _print_table(rows: Sequence[tuple[str, list[str] | str]]) -> None:
    """A line for each file: the columns of what it is, or why it is none."""
    head = ["file", "architecture", "algorithm", "rank", "size"]
    names = [clipped(one_line(file), LONGEST) for file, _ in rows]
    found = [[name, *told] for name, (_, told) in zip(names, rows, strict=True) if isinstance(told, list)]
    if any(len(cells) > len(head) for cells in found):
        head.append("matched")
    lines = [head, *found]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[0] = max(widths[0], *map(len, names))
    print(painted(_aligned(head, widths), "bold"))
    for name, (_, told) in zip(names, rows, strict=True):
        if isinstance(told, list):
            print(_aligned([name, *told], widths))
        else:
            reason = told if len(told) <= LONGEST_REASON else f"{told[:LONGEST_REASON]}…"
            print(name.ljust(widths[0]), painted(reason, "red"), sep="  ")


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
