"""The command line: `lyco`, or `python -m lyco_core`.

torch takes seconds to import, so commands import what they need when they run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from .errors import LycoError
from .layouts import LAYOUTS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 after one line on standard error."""
    for stream in (sys.stdout, sys.stderr):  # names in a file may hold what a terminal cannot print
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except LycoError as error:
        print(f"lyco: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `lyco inspect … | head`
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("lyco: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as everything else here."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"lyco: error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lyco", description="LoHa and LoKr adapters for ComfyUI: exactly, or with an error that says why."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    inspect = commands.add_parser("inspect", help="say what an adapter file is, and what of it a model takes")
    inspect.add_argument("file", metavar="FILE", help="an adapter (.safetensors)")
    inspect.add_argument("--model", metavar="CHECKPOINT", help="a model's weights (.safetensors): say what matches")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(run=_inspect)

    delta = commands.add_parser("delta", help="write what an adapter adds to each weight (float32)")
    delta.add_argument("file", metavar="FILE", help="an adapter (.safetensors)")
    delta.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write (.safetensors)")
    delta.add_argument("--layout", choices=LAYOUTS, default="comfyui", help="whose names the weights get [%(default)s]")
    delta.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    delta.set_defaults(run=_delta)

    convert = commands.add_parser("convert", help="another layout, losslessly")
    convert.add_argument("files", metavar="FILE", nargs="+", help="adapters (.safetensors), or folders of them")
    convert.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="the file to write, or a folder for several"
    )
    convert.add_argument("--to", choices=LAYOUTS, required=True, help="whose module names it is to have")
    convert.add_argument("--as", dest="form", choices=("lora",), help="every adapter as a LoRA, exactly")
    convert.add_argument(
        "--rank", type=int, help="the best LoRAs of this rank (an approximation; its error is printed)"
    )
    convert.add_argument("--max-error", type=float, help="the smallest LoRAs of this relative error (likewise)")
    convert.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="storage dtype (its error is printed)"
    )
    convert.add_argument("--overwrite", action="store_true", help="replace what is there")
    convert.set_defaults(run=_convert)

    merge = commands.add_parser("merge", help="adapters into a checkpoint file")
    merge.add_argument("--base", metavar="CHECKPOINT", required=True, help="a file, a shard, an index, or their folder")
    merge.add_argument(
        "--adapter",
        metavar="FILE[@STRENGTH]",
        action="append",
        required=True,
        dest="adapters",
        help="an adapter, and how much of it [1]; may be given again",
    )
    merge.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write, or index of shards")
    merge.add_argument("--include", metavar="REGEX", action="append", default=[], help="only these modules")
    merge.add_argument("--exclude", metavar="REGEX", action="append", default=[], help="not these modules")
    merge.add_argument(
        "--block-strength", metavar="REGEX=N", action="append", default=[], help="multiplies the strength of these"
    )
    merge.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="storage dtype [the base's]")
    merge.add_argument("--stochastic", metavar="SEED", type=int, help="round stochastically instead of to the nearest")
    merge.add_argument("--device", default="cpu", help="where the arithmetic is done [%(default)s]")
    merge.add_argument("--max-shard-size", metavar="SIZE", help="split the output, e.g. 5GB")
    merge.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    merge.set_defaults(run=_merge)

    for command in (inspect, delta, convert, merge):
        command.add_argument(
            "--architecture", metavar="ID", help="the model family, where names and shapes fit several (e.g. wan)"
        )

    demo = commands.add_parser("demo", help="a tour on a tiny model and a Musubi-style LoKr made on the spot")
    demo.set_defaults(run=_demo)
    return parser


def _inspect(options: argparse.Namespace) -> None:
    from .inspect import inspect_file

    found = inspect_file(options.file, options.model, architecture=options.architecture)
    if options.json:
        print(json.dumps(found.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(found.lines()))


def _delta(options: argparse.Namespace) -> None:
    from .delta import write_delta

    keys = write_delta(
        options.file,
        options.output,
        layout=options.layout,
        architecture=options.architecture,
        overwrite=options.overwrite,
    )
    print(f"{options.output}: {len(keys)} delta weights, float32, {options.layout} layout")


def _convert(options: argparse.Namespace) -> None:
    import torch

    from .conversion import Options
    from .convert import convert_file

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
            made = convert_file(
                source,
                output,
                asked,
                architecture=options.architecture,
                overwrite=options.overwrite,
                progress=_progress(name),
            )
            print(f"{output}: {made.summary()}; {_size(source)} -> {_size(output)}")
        except LycoError as error:
            if len(sources) == 1:
                raise
            print(f"lyco: error: {error}", file=sys.stderr)
            failed += 1
    if failed:
        raise LycoError(f"{failed} of {len(sources)} files were not converted")


def _merge(options: argparse.Namespace) -> None:
    import torch

    from .merge import MergeOptions, merge_checkpoint
    from .merge.options import parse_size, parse_source
    from .selection import Selection, parse_block_strength

    strengths = [parse_block_strength(text) for text in options.block_strength]
    asked = MergeOptions(
        Selection.of(options.include, options.exclude, strengths),
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        seed=options.stochastic,
        device=options.device,
        max_shard_bytes=parse_size(options.max_shard_size) if options.max_shard_size else None,
        architecture=options.architecture,
    )
    sources = [parse_source(text) for text in options.adapters]
    made = merge_checkpoint(options.base, sources, options.output, asked, overwrite=options.overwrite)
    for source, modules in zip(sources, made.modules, strict=True):
        print(f"{source.path}: {modules} modules at strength {source.strength:g}")
    print(f"{made.files[-1]}: {made.weights} of {made.tensors} tensors changed, {made.bytes / 1e9:.2f} GB")


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


def _progress(name: str) -> Callable[[int, int], None]:
    """Counts modules on a terminal, and is silent elsewhere."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{name}: {done}/{total} modules", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def _size(path: str) -> str:
    size = os.path.getsize(path)
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _demo(_: argparse.Namespace) -> None:
    from .demo import run_demo

    run_demo()
