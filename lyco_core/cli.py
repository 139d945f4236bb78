"""The command line: `lyco`, or `python -m lyco_core`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

from .commands import COMMANDS
from .commands.common import ADVICE
from .errors import LycoError, advising

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 after one line on standard error."""
    for stream in (sys.stdout, sys.stderr):  # names in a file may hold what a terminal cannot print
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        with advising(ADVICE):
            options.run(options)
    except LycoError as error:
        print(f"lyco: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `lyco inspect … | head`
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("lyco: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as everything else here."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"lyco: error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lyco", description="LoHa and LoKr adapters for ComfyUI: exactly, or with an error that says why."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser
