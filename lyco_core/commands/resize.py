"""`lyco resize`: an adapter of less rank."""

from __future__ import annotations

import argparse

from ..text import size_text
from .common import Commands, add_limits, add_report, counter, given_limits, print_report, require_report

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("resize", help="make an adapter of less rank (an approximation, measured)")
    parser.add_argument("file", metavar="FILE", help="an adapter (.safetensors)")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write (.safetensors)")
    add_limits(parser)
    add_report(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    import os

    import torch

    from ..approximate.options import Limits
    from ..approximate.resize import resize_file
    from ..io.paths import only_one

    source = only_one(options.file)
    require_report(options.report)
    report = resize_file(
        source,
        options.output,
        Limits.of(*given_limits(options)),
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        overwrite=options.overwrite,
        progress=counter(options.output, "modules"),
    )
    sizes = " -> ".join(size_text(os.path.getsize(path)) for path in (source, options.output))
    print(f"{options.output}: {sizes}")
    print_report(report, options.report)
