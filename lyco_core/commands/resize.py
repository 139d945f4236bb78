"""`lyco resize`: an adapter of less rank."""

from __future__ import annotations

import argparse

from ..text import size_text
from .common import (
    Commands,
    add_limits,
    add_output,
    add_report,
    counter,
    given_limits,
    given_output,
    print_report,
    require_report,
)

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("resize", help="make an adapter of less rank (an approximation, measured)")
    parser.add_argument("file", metavar="FILE", help="an adapter (.safetensors)")
    add_output(parser)
    add_limits(parser)
    add_report(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    import os

    import torch

    from ..approximate.options import Limits
    from ..approximate.resize import resize_file
    from ..io.paths import only_one

    source, output = only_one(options.file), given_output(options)
    require_report(options.report)
    report = resize_file(
        source,
        output,
        Limits.of(*given_limits(options)),
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        overwrite=options.overwrite,
        progress=counter(output, "modules"),
    )
    sizes = " -> ".join(size_text(os.path.getsize(path)) for path in (source, output))
    print(f"{output}: {sizes}")
    print_report(report, options.report)
