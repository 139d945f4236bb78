"""`lyco compare`: how two adapters lie to each other."""

from __future__ import annotations

import argparse

from .common import Commands, add_architecture, counter

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("compare", help="say where two adapters add up, pass each other by, or fight")
    for name in ("first", "second"):
        parser.add_argument(name, metavar="FILE[@STRENGTH]", help="an adapter (.safetensors), and how much of it [1]")
    parser.add_argument(
        "--base", metavar="CHECKPOINT", help="the model, for DoRA, OFT and others that change its own numbers"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every module")
    parser.set_defaults(run=run)
    add_architecture(parser)


def run(options: argparse.Namespace) -> None:
    import json

    from ..comparing import compare_files
    from ..io.paths import only_one
    from ..merging.options import Source, parse_source

    given = [parse_source(text) for text in (options.first, options.second)]
    first, second = (Source(only_one(str(source.path)), source.strength) for source in given)
    done = compare_files(
        first,
        second,
        base=options.base and only_one(options.base),
        architecture=options.architecture,
        progress=counter(str(first.path), "weights"),
    )
    print(json.dumps(done.as_json(), indent=2, allow_nan=False) if options.json else "\n".join(done.lines()))
