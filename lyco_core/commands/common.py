"""What several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Protocol

__all__ = ["Commands", "add_architecture", "counter", "size_text"]


class Commands(Protocol):
    """Where a command is added: what `ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:
        """A parser for the arguments of a new command."""
        ...


def add_architecture(parser: argparse.ArgumentParser) -> None:
    """The option of every command that has to tell what an adapter was trained on."""
    parser.add_argument(
        "--architecture", metavar="ID", help="the model family, where names and shapes fit several (e.g. wan)"
    )


def counter(name: str, unit: str, size: int = 1) -> Callable[[int, int], None]:
    """Counts on a terminal in `unit`s of `size`, and is silent elsewhere."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{name}: {done // size}/{total // size} {unit}", end=end, file=sys.stderr, flush=True)

    return show


def size_text(size: int) -> str:
    """Bytes as a person reads them."""
    if size >= 1e9:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
