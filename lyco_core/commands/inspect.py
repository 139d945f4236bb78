"""`lyco inspect`: what a file is, and what of it a model takes."""

from __future__ import annotations

import argparse
import json

from .common import Commands, add_architecture, each

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("inspect", help="say what an adapter file is, and what of it a model takes")
    parser.add_argument("files", metavar="FILE", nargs="+", help="adapters (.safetensors)")
    parser.add_argument(
        "--model", metavar="CHECKPOINT", help="a model's weights (.safetensors, .gguf): say what matches"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; of several files, a list")
    parser.set_defaults(run=run)
    add_architecture(parser)


def run(options: argparse.Namespace) -> None:
    from ..inspection import Inspection, inspect_file
    from ..io.paths import expanded, only_one

    files = expanded(options.files)
    model = options.model and only_one(options.model)
    inspected: list[Inspection] = []
    try:
        for done in each(files, lambda file: inspect_file(file, model, architecture=options.architecture), "inspected"):
            if not options.json:
                print("\n".join([*[""][: len(inspected)], *done.lines()]))
            inspected.append(done)
    finally:
        if options.json and inspected:
            found = [done.as_json() for done in inspected]
            # ASCII alone, which a program can read whatever the terminal's code page is.
            print(json.dumps(found if len(files) > 1 else found[0], indent=2, allow_nan=False))
