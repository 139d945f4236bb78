"""`lyco extract`: the adapter that turns one checkpoint into another."""

from __future__ import annotations

import argparse

from ..text import size_text
from .common import (
    OF_FORMS,
    Commands,
    add_factor,
    add_limits,
    add_output,
    add_report,
    add_selection,
    counter,
    given_limits,
    given_output,
    print_report,
    read_ones,
    require_report,
)

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "extract", help="find the adapter between two checkpoints (an approximation, measured)"
    )
    parser.add_argument("--base", metavar="CHECKPOINT", required=True, help="a file, a shard, an index, or a folder")
    parser.add_argument("--tuned", metavar="CHECKPOINT", required=True, help="what the base was tuned into, likewise")
    add_output(parser)
    parser.add_argument(
        "--as", dest="form", choices=("lora", "lokr", "loha"), default="lora", help="what kind of adapter [%(default)s]"
    )
    add_limits(parser)
    add_report(parser)
    add_factor(parser)
    add_selection(parser)
    parser.add_argument(
        "--device",
        default="cpu",
        help="where the arithmetic is done; what it cannot do is done on the CPU [%(default)s]",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    import os

    import torch

    from ..approximate.extract import extract_file
    from ..approximate.options import ExtractOptions, Limits
    from ..io.paths import only_one
    from ..selection import Selection

    require_report(options.report)
    given, output = given_limits(options), given_output(options)
    limits = None if options.form == "lokr" and not any(given) else Limits.of(*given)
    report = extract_file(
        only_one(options.base),
        only_one(options.tuned),
        output,
        ExtractOptions(
            options.form,
            limits,
            selection=Selection.of(options.include, options.exclude),
            dtype=getattr(torch, options.dtype or "float32"),
            device=options.device,
            **read_ones(options, "form", OF_FORMS),
        ),
        overwrite=options.overwrite,
        progress=counter(output, "weights"),
    )
    print(f"{output}: {size_text(os.path.getsize(output))}")
    print_report(report, options.report)
