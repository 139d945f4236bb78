"""`lyco demo`: a tour."""

from __future__ import annotations

import argparse

from .common import Commands

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("demo", help="a tour on a tiny model and a Musubi-style LoKr made on the spot")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> None:
    from ..demo import run_demo

    run_demo()
