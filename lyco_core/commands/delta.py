"""`lyco delta`: what an adapter adds to each weight, as a file."""

from __future__ import annotations

import argparse
import os

from ..layouts import LAYOUTS
from .common import Commands, add_architecture, add_output, add_selection, counter, given_output

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("delta", help="write what an adapter adds to each weight (float32)")
    parser.add_argument("file", metavar="FILE", help="an adapter (.safetensors)")
    add_output(parser)
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--layout", choices=LAYOUTS, default="comfyui", help="whose names the weights get [%(default)s]")
    names.add_argument(
        "--model", metavar="CHECKPOINT", help="a model's weights (.safetensors, .gguf), of any family: their own names"
    )
    add_selection(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    parser.set_defaults(run=run)
    add_architecture(parser)


def run(options: argparse.Namespace) -> None:
    from ..delta_weights import write_delta
    from ..io.paths import only_one
    from ..selection import Selection

    output = given_output(options)
    keys, left_out = write_delta(
        only_one(options.file),
        output,
        layout=options.layout,
        model=options.model and only_one(options.model),
        architecture=options.architecture,
        selection=Selection.of(options.include, options.exclude),
        overwrite=options.overwrite,
        progress=counter(output, "weights"),
    )
    names = f"names of {os.path.basename(options.model)}" if options.model else f"{options.layout} layout"
    done = f"{output}: {len(keys)} delta weights, float32, {names}"
    print("; left out: ".join([done, *left_out]))
