"""`lyco inspect`: what a file is, and what of it a model takes."""

from __future__ import annotations

import argparse
import json

from .common import Commands, add_architecture

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("inspect", help="say what an adapter file is, and what of it a model takes")
    parser.add_argument("file", metavar="FILE", help="an adapter (.safetensors)")
    parser.add_argument(
        "--model", metavar="CHECKPOINT", help="a model's weights (.safetensors, .gguf): say what matches"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    add_architecture(parser)


def run(options: argparse.Namespace) -> None:
    from ..inspect import inspect_file

    found = inspect_file(options.file, options.model, architecture=options.architecture)
    if options.json:
        print(json.dumps(found.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(found.lines()))
