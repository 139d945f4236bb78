"""`lyco convert`: adapters in another layout."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..errors import LycoError, advising
from ..layouts import LAYOUTS
from .common import ADVICE, Commands, add_architecture, counter, size_text

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("convert", help="another layout, losslessly")
    parser.add_argument("files", metavar="FILE", nargs="+", help="adapters (.safetensors), or folders of them")
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="the file to write, or a folder for several"
    )
    parser.add_argument("--to", choices=LAYOUTS, required=True, help="whose module names it is to have")
    parser.add_argument("--as", dest="form", choices=("lora",), help="every adapter as a LoRA, exactly")
    parser.add_argument("--rank", type=int, help="the best LoRAs of this rank (an approximation; its error is printed)")
    parser.add_argument("--max-error", type=float, help="the smallest LoRAs of this relative error (likewise)")
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="storage dtype (its error is printed)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.set_defaults(run=run)
    add_architecture(parser)


def run(options: argparse.Namespace) -> None:
    import torch

    from ..conversion import Options
    from ..convert import convert_file

    asked = Options(
        options.to,
        as_lora=options.form == "lora",
        rank=options.rank,
        max_error=options.max_error,
        dtype=getattr(torch, options.dtype) if options.dtype else None,
    )
    sources, failed = _sources(options.files), 0
    several = len(sources) > 1 or os.path.isdir(options.files[0]) or os.path.isdir(options.output)
    for source, name in sources:
        output = os.path.join(options.output, name) if several else options.output
        try:
            if several:
                os.makedirs(os.path.dirname(output), exist_ok=True)
            with advising(ADVICE):
                made = convert_file(
                    source,
                    output,
                    asked,
                    architecture=options.architecture,
                    overwrite=options.overwrite,
                    progress=counter(name, "modules"),
                )
            sizes = " -> ".join(size_text(os.path.getsize(path)) for path in (source, output))
            print(f"{output}: {made.summary()}; {sizes}")
        except LycoError as error:
            if len(sources) == 1:
                raise
            print(f"lyco: error: {error}", file=sys.stderr)
            failed += 1
    if failed:
        raise LycoError(f"{failed} of {len(sources)} files were not converted")


def _sources(files: Sequence[str]) -> list[tuple[str, str]]:
    """(path, name below the output folder) of each file, and of each adapter in a folder."""
    found: list[tuple[str, str]] = []
    for file in files:
        if not os.path.isdir(file):
            found.append((file, os.path.basename(file)))
            continue
        for folder, _, names in sorted(os.walk(file)):
            paths = (os.path.join(folder, name) for name in sorted(names) if name.endswith(".safetensors"))
            found += ((path, os.path.relpath(path, file)) for path in paths)
    if not found:
        raise LycoError(f"there is no .safetensors file in {', '.join(files)}")
    return found
