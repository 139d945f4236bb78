"""The command line: `lyco`, or `python -m lyco_core`."""

from __future__ import annotations

import argparse
import gc
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

from .commands import AS_TYPED, COMMANDS
from .commands.common import ADVICE, print_error
from .console import clear_line
from .errors import LycoError, advising

__all__ = ["main"]

MANY = 100_000
"""New objects after which Python looks for garbage: at its own 700 that takes a fifth of the time of `import torch`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 after one line on standard error."""
    for stream in (sys.stdout, sys.stderr):  # names in a file may hold what a terminal cannot print
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if arguments is None:  # a process of its own
        gc.set_threshold(MANY)
    options = _parsed(sys.argv[1:] if arguments is None else arguments)
    try:
        with advising(ADVICE):
            options.run(options)
    except LycoError as error:
        print_error(str(error))
        return 1
    except BrokenPipeError:  # `lyco inspect … | head`
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        clear_line(sys.stderr)
        print("lyco: interrupted; no file is left half written", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as everything else here."""

    def error(self, message: str) -> NoReturn:
        print_error(f"{message}; see {self.prog} --help")
        sys.exit(1)


class _Version(argparse.Action):
    """Prints what runs here, and ends."""

    def __call__(self, *_: object) -> NoReturn:
        from .commands.version import version_lines

        print("\n".join(version_lines()))
        sys.exit(0)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="lyco",
        description="LoHa and LoKr adapters for ComfyUI: exactly, or with an error that says why.",
        epilog="lyco COMMAND --help says what a command takes.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is, and where it lies")

    def print_help(_: argparse.Namespace) -> None:
        parser.print_help()

    parser.set_defaults(run=print_help)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add(commands)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands.choices:
        parser.error(_no_command(arguments[0], list(commands.choices)))
    words: Sequence[str] = ()
    if arguments and arguments[0] in AS_TYPED and not {"-h", "--help"} & set(arguments[1:]):
        arguments, words = arguments[:1], arguments[1:]
    options, unknown = parser.parse_known_args(arguments)
    options.words = words
    if unknown:  # which argparse itself would tell as the whole program's fault
        what = "there is no such option" if unknown[0].startswith("-") else "one argument too many"
        commands.choices.get(arguments[0], parser).error(f"{unknown[0]}: {what}")
    return options


def _no_command(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    return f"there is no command {name}; {f'do you mean {near[0]}?' if near else 'expected ' + ', '.join(known)}"
