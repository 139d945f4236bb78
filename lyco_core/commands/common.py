"""What several commands share."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..console import Progress, clear_line, painted
from ..errors import FileError, LycoError, Remedy, about_file

if TYPE_CHECKING:
    from ..approximate.report import Report

__all__ = [
    "ADVICE",
    "OF_FORMS",
    "Commands",
    "add_architecture",
    "add_factor",
    "add_limits",
    "add_output",
    "add_report",
    "add_selection",
    "counter",
    "each",
    "given_limits",
    "given_output",
    "print_error",
    "print_report",
    "print_warning",
    "read_ones",
    "require_report",
    "write_report",
]


Item = TypeVar("Item")
Made = TypeVar("Made")

ADVICE = {
    Remedy.WIDER_DTYPE: "use --dtype bfloat16",
    Remedy.OWN_DTYPE: "leave --dtype out",
    Remedy.PROCESSOR: "leave --device out to use the processor",
    Remedy.ARCHITECTURE: "say which with --architecture",
    Remedy.AS_LORA: "convert with --as lora",
    Remedy.RANK: "give a --rank",
    Remedy.LAYOUT: "convert with --to {}",
    Remedy.OTHER_LAYOUT: "they have a place with --to {}",
    Remedy.UNMERGED: (
        "merge into the bf16, fp16 or fp8 checkpoint that it was made from and quantize the result, or load the "
        "adapter with Load LoHa/LoKr"
    ),
    Remedy.OVERWRITE: "choose another name, or replace it with --overwrite",
    Remedy.SMALLNESS: "give --rank, --energy or --max-error",
    Remedy.AGAIN: "go on with the same command{}",
    Remedy.OPTIONS: "see why with --check-options",
    Remedy.BASE: "give the checkpoint that they were trained on with --base",
    Remedy.APPLY: "load it onto the model, or merge it with lyco merge",
    Remedy.MODEL: "give the checkpoint that it was trained on with --model",
    Remedy.UNQUANTIZED: "leave --quantize out",
    Remedy.AS_IT_IS: "leave --dtype out to keep its numbers as they are",
    Remedy.EXCLUDE: 'leave these out with --exclude "{}"',
    Remedy.LEAVE_OUT: 'merge the rest with --on-partial-match warn, or leave these out with --exclude "{}"',
}
"""What to do about an error, in the options of the command line: each means the same in all commands."""


class Commands(Protocol):
    """Where a command is added: what `ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:
        """A parser for the arguments of a new command."""
        ...


def add_architecture(parser: argparse.ArgumentParser) -> None:
    """Declare the option of every command that has to tell what an adapter was trained on."""
    parser.add_argument(
        "--architecture", metavar="ID", help="the model family, where names and shapes fit several (e.g. wan)"
    )


def add_limits(parser: argparse.ArgumentParser, what: str = "an approximation") -> None:
    """Declare the options that say how small, or how exact, `what` is to be, and how it is stored."""
    group = parser.add_argument_group("how small", f"{what}; the error is printed")
    group.add_argument("--rank", metavar="N", type=int, help="of at most this rank, 16 say")
    group.add_argument(
        "--energy",
        metavar="SHARE",
        type=float,
        help="the least rank that keeps this share of the change's squared norm, 0.99 say",
    )
    group.add_argument(
        "--max-error",
        metavar="SHARE",
        type=float,
        help="the least rank of this relative error, 0.05 say; with --rank both must hold",
    )
    group.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="what numbers are stored as")


def add_output(
    parser: argparse.ArgumentParser,
    what: str = "the file to write (.safetensors, which is added to a name without an ending)",
) -> None:
    """Declare the option that names the file to write."""
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help=what)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say which modules take part."""
    parser.add_argument("--include", metavar="REGEX", action="append", default=[], help="only these modules")
    parser.add_argument("--exclude", metavar="REGEX", action="append", default=[], help="not these modules")


def given_limits(options: argparse.Namespace) -> tuple[int | None, float | None, float | None]:
    """(rank, energy, error) as the options of `add_limits` have them: the arguments of `Limits.of`."""
    return options.rank, options.energy, options.max_error


def given_output(options: argparse.Namespace, *others: str) -> str:
    """The name that `add_output` was given, with an ending: safetensors', or one of `others`."""
    from ..io.paths import with_ending

    return with_ending(options.output, *others)


OF_FORMS = {"factor": ("lokr",)}
"""Option -> the forms of an adapter that read it."""


def add_factor(parser: argparse.ArgumentParser) -> None:
    """Declare the option that is of LoKr alone: see `OF_FORMS`."""
    parser.add_argument("--factor", metavar="N", type=int, help="of a LoKr: one side of W1; -1 splits evenly [-1]")


def read_ones(options: argparse.Namespace, kind: str, readers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Those of some options that are given, by name.

    Args:
        kind: the option that decides which are read.
        readers: option -> the values of `kind` with which it is read.

    Raises:
        LycoError: one is given that is not read.
    """
    chosen, flag = getattr(options, kind), {"form": "as"}.get(kind, kind)
    given = {name: value for name in readers if (value := getattr(options, name)) is not None}
    for name in given:
        if chosen not in readers[name]:
            raise LycoError(
                f"--{name.replace('_', '-')} is for --{flag} {', '.join(readers[name])}, and --{flag} is "
                f"{chosen or 'not given'}; leave it out, or choose one that reads it"
            )
    return given


def add_report(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the commands that write one approximation."""
    parser.add_argument("--report", metavar="JSON", help="write the error of every module into this file")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")


def require_report(path: str | None) -> None:
    """Raise `FileError`, before the work, if no report can be written at `path`; None asks for none."""
    from ..io import refuse_existing

    if path is not None:
        with about_file(path):
            refuse_existing(path, overwrite=True)


def print_report(report: Report, path: str | None) -> None:
    """Print totals and the worst modules; write all modules into `path`, if one is given."""
    print("\n".join(report.lines()))
    write_report(report, path)


def write_report(report: Report | None, path: str | None) -> None:
    """Write all modules of a report into `path`, if one is given; None: nothing is approximated."""
    if path is not None:
        with about_file(path):
            try:
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(report.as_json() if report else {"error": 0.0, "modules": {}}, file, indent=2)
            except OSError as error:
                raise FileError(f"cannot be written: {error.strerror}") from None


def each(items: Sequence[Item], do: Callable[[Item], Made], what: str) -> Iterator[Made]:
    """What `do` makes of each item; of several, the error of one is printed, and the others go on.

    Raises:
        LycoError: one failed; `what` was not done to it.
    """
    failed = 0
    for item in items:
        try:
            made = do(item)
        except LycoError as error:
            if len(items) == 1:
                raise
            print_error(str(error))
            failed += 1
        else:
            yield made
    if failed:
        raise LycoError(f"{failed} of {len(items)} files were not {what}")


def counter(name: str, unit: str, size: int = 1) -> Progress:
    """A progress that counts on a terminal in `unit`s of `size`, and is silent elsewhere."""
    return Progress(os.path.basename(name), unit, size)


def print_error(text: str) -> None:
    """What failed, as a line on standard error."""
    _complain("lyco: error:", "red", text)


def print_warning(text: str) -> None:
    """What a person should know though it went on, as a line on standard error."""
    _complain("lyco: warning:", "yellow", text)


def _complain(label: str, style: str, text: str) -> None:
    clear_line(sys.stderr)
    print(painted(label, style, sys.stderr), text, file=sys.stderr)
