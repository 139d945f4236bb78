"""`lyco convert`: adapters in another layout."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from ..errors import FileError, about_file, advising
from ..layouts import LAYOUTS
from ..text import size_text
from .common import ADVICE, Commands, add_architecture, add_limits, add_selection, counter, each, given_limits

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("convert", help="write an adapter under another tool's names, losslessly")
    parser.add_argument("files", metavar="FILE", nargs="+", help="adapters (.safetensors), or folders of them")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="the file to write (.safetensors is added), or the folder to write into, which several need",
    )
    parser.add_argument("--to", choices=LAYOUTS, required=True, help="whose module names it is to have")
    parser.add_argument("--as", dest="form", choices=("lora",), help="every adapter as a LoRA, exactly")
    add_limits(parser, "the best LoRAs instead, or numbers of another dtype")
    add_selection(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.set_defaults(run=run)
    add_architecture(parser)


def run(options: argparse.Namespace) -> None:
    import torch

    from ..approximate.options import Limits
    from ..conversion import ConvertOptions, convert_file
    from ..io.output import make_folder_of
    from ..io.paths import expanded
    from ..selection import Selection

    given = given_limits(options)
    wanted = ConvertOptions(
        options.to,
        as_lora=options.form == "lora",
        limits=None if given == (None, None, None) else Limits.of(*given),
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        selection=Selection.of(options.include, options.exclude),
    )
    sources = _sources(expanded(options.files), options.output)

    def convert(pair: tuple[str, str]) -> str:
        source, output = pair
        with about_file(output):
            make_folder_of(output)
        with advising(ADVICE):
            made = convert_file(
                source,
                output,
                wanted,
                architecture=options.architecture,
                overwrite=options.overwrite,
                progress=counter(os.path.basename(source), "modules"),
            )
        sizes = " -> ".join(size_text(os.path.getsize(path)) for path in pair)
        return f"{output}: {made.summary()}; {sizes}"

    for line in each(sources, convert, "converted"):
        print(line)


def _sources(files: Sequence[str], output: str) -> list[tuple[str, str]]:
    """Each file, and each adapter in a folder, with the path that its conversion gets.

    Raises:
        FileError: there is none, or `output` does not suit them.
    """
    from ..io.paths import ENDING, is_safetensors, without_ending

    if not output:
        raise FileError("the output has no name; give it one")
    into_folder = os.path.isdir(output) or output.endswith((os.sep, "/"))
    if len(files) == 1 and not os.path.isdir(files[0]):
        name = os.path.basename(files[0])
        return [(files[0], os.path.join(output, name) if into_folder else without_ending(output) + ENDING)]
    named = [pair for file in files for pair in _named(file)]
    if not named:
        raise FileError(f"there is no {ENDING} file in {', '.join(files)}")
    if not into_folder and (is_safetensors(output) or os.path.lexists(output)):
        raise FileError(f"{output}: is a file's name, and several adapters go into a folder; name one with -o")
    found: dict[str, str] = {}
    for path, name in named:
        target = os.path.join(output, name)
        if target in found:
            raise FileError(f"{found[target]} and {path} would both become {target}; convert them one after the other")
        found[target] = path
    return [(path, target) for target, path in found.items()]


def _named(file: str) -> list[tuple[str, str]]:
    """(path, name below the output folder) of a file, or of each adapter in a folder."""
    from ..io.paths import files_in

    if not os.path.isdir(file):
        return [(file, os.path.basename(file))]
    return [(os.path.join(file, name), name) for name in files_in(file)]
