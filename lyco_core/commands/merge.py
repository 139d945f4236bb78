"""`lyco merge`: adapters into a checkpoint file."""

from __future__ import annotations

import argparse

from ..text import clipped, counted, one_line, size_text
from .common import Commands, add_architecture, add_output, add_selection, counter, given_output, print_warning

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("merge", help="write a checkpoint with adapters in it")
    parser.add_argument(
        "--base",
        metavar="CHECKPOINT",
        required=True,
        help="a file (.safetensors, .gguf), a shard, an index, or a folder",
    )
    parser.add_argument(
        "--adapter",
        metavar="FILE[@STRENGTH]",
        action="append",
        required=True,
        dest="adapters",
        help="an adapter, and how much of it [1]; may be given again",
    )
    add_output(
        parser,
        "the file to write (.safetensors, which is added to a name without an ending, or .gguf), or index of shards",
    )
    add_selection(parser)
    parser.add_argument(
        "--block-strength", metavar="REGEX=X", action="append", default=[], help="multiplies the strength of these"
    )
    parser.add_argument(
        "--on-partial-match",
        choices=("error", "warn"),
        default="error",
        help="if the base lacks some of an adapter's modules: stop, or merge the rest and say so [%(default)s]",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="storage dtype, plain also of a quantized base [the base's]",
    )
    parser.add_argument(
        "--quantize",
        choices=("int8_convrot", "fp8_scaled", "mxfp8", "nvfp4", "w4a8"),
        help="store the Linears of a base in floating point so, as ComfyUI's own files of the model have them",
    )
    parser.add_argument("--stochastic", metavar="SEED", type=int, help="round stochastically instead of to the nearest")
    parser.add_argument("--device", default="cpu", help="where the arithmetic is done [%(default)s]")
    parser.add_argument("--max-shard-size", metavar="SIZE", help="split the output, e.g. 5GB")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    parser.set_defaults(run=run)
    add_architecture(parser)


def run(options: argparse.Namespace) -> None:
    import torch

    from ..io.paths import expanded, only_one
    from ..merging import MergeOptions, merge_checkpoint
    from ..merging.options import Source, parse_size, parse_source
    from ..selection import Selection, parse_block_strength

    strengths = [parse_block_strength(text) for text in options.block_strength]
    wanted = MergeOptions(
        Selection.of(options.include, options.exclude, strengths),
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        quantize=options.quantize,
        seed=options.stochastic,
        device=options.device,
        max_shard_bytes=parse_size(options.max_shard_size) if options.max_shard_size else None,
        architecture=options.architecture,
        partial=options.on_partial_match == "warn",
    )
    output = given_output(options, ".gguf")
    given = [parse_source(text) for text in options.adapters]
    sources = [Source(path, source.strength) for source in given for path in expanded([str(source.path)])]
    made = merge_checkpoint(
        only_one(options.base),
        sources,
        output,
        wanted,
        overwrite=options.overwrite,
        progress=counter(output, "MB", 10**6),
    )
    for source, modules, ignored, left_out in zip(sources, made.modules, made.ignored, made.left_out, strict=True):
        taken = f"{source.path}: {counted(modules, 'module')} at strength {source.strength:g}"
        print("; left out: ".join([taken, *ignored]))
        if left_out:
            print_warning(f"{source.path}: left out: {one_line(clipped(left_out))}")
    for line in (*made.quantized, *made.survival):
        print(line)
    print(f"{made.files[-1]}: {made.weights} of {made.tensors} tensors changed, {size_text(made.bytes)}")
