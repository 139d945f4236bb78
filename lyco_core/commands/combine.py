"""`lyco combine`: one adapter out of several."""

from __future__ import annotations

import argparse

from ..layouts import LAYOUTS
from ..text import size_text
from .common import (
    OF_FORMS,
    Commands,
    add_architecture,
    add_factor,
    add_limits,
    add_output,
    add_report,
    counter,
    given_limits,
    given_output,
    read_ones,
    require_report,
    write_report,
)

__all__ = ["add"]

_OF_METHODS = {
    "density": ("ties", "dare", "della", "breadcrumbs", "knots"),
    "epsilon": ("della",),
    "gamma": ("breadcrumbs",),
    "seed": ("dare", "della"),
}
"""Option -> the methods that read it."""

_OF_AVERAGES = {"beta": ("ema",), "sigma_rel": ("post-hoc",), "average_on": ("uniform", "ema", "post-hoc")}
"""Option of an average -> the averages that read it."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("combine", help="make one adapter out of several")
    parser.add_argument(
        "adapters",
        metavar="FILE[@STRENGTH]",
        nargs="+",
        help="adapters of one model family (.safetensors), and how much of each [1]",
    )
    add_output(parser)
    parser.add_argument(
        "--method",
        choices=("sum", "ties", "dare", "della", "breadcrumbs", "slerp", "knots"),
        default="sum",
        help="how they become one [%(default)s, which is exact]",
    )
    parser.add_argument(
        "--as", dest="form", choices=("lora", "lokr", "loha"), help="what every module becomes [what it can stay]"
    )
    add_limits(parser, "an approximation instead of what is exact")
    add_report(parser)
    add_factor(parser)
    parser.add_argument("--to", choices=LAYOUTS, help="whose module names it is to have [the first file's]")
    parser.add_argument(
        "--base", metavar="CHECKPOINT", help="the model, for DoRA, OFT and others that change its own numbers"
    )
    _add_selections(parser)
    _add_averages(parser)
    _add_shares(parser)
    parser.set_defaults(run=run)
    add_architecture(parser)


def _add_selections(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "which modules", "of all adapters, or of the Nth alone: --exclude '2:.*ffn.*' is for the second FILE"
    )
    group.add_argument("--include", metavar="[N:]REGEX", action="append", default=[], help="only these modules")
    group.add_argument("--exclude", metavar="[N:]REGEX", action="append", default=[], help="not these modules")
    group.add_argument(
        "--block-strength",
        metavar="[N:]REGEX=X",
        action="append",
        default=[],
        help="multiplies the strength of these",
    )


def _add_averages(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("average", "over checkpoints of one training, oldest first, instead of strengths")
    group.add_argument("--average", choices=("uniform", "ema", "post-hoc"), help="what share each checkpoint has")
    group.add_argument("--beta", metavar="X", type=float, help="of ema: the decay [0.95]")
    group.add_argument("--sigma-rel", metavar="X", type=float, help="of post-hoc: the relative width [0.1]")
    group.add_argument(
        "--average-on",
        choices=("auto", "factors", "weights"),
        help="the factors, or the changes of weights [the factors, if the files say that they are of one training]",
    )


def _add_shares(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("methods")
    group.add_argument(
        "--density",
        metavar="SHARE",
        type=float,
        help="what ties, knots [0.2], dare, della [0.5] and breadcrumbs [0.143] keep of each change",
    )
    group.add_argument("--epsilon", metavar="X", type=float, help="of della: the range of probabilities [0.2]")
    group.add_argument(
        "--gamma",
        metavar="SHARE",
        type=float,
        help="of breadcrumbs: the largest numbers, left out [0.007]",
    )
    group.add_argument("--seed", metavar="N", type=int, help="of dare and della [0]")


def run(options: argparse.Namespace) -> None:
    import os

    import torch

    from ..approximate.options import Limits
    from ..combining import Addend, Average, CombineOptions, combine_files
    from ..combining.options import selections
    from ..io.paths import expanded, only_one
    from ..merging.options import Source, parse_source

    require_report(options.report)
    given, output = given_limits(options), given_output(options)
    averaging = {n.removeprefix("average_"): x for n, x in read_ones(options, "average", _OF_AVERAGES).items()}
    wanted = CombineOptions(
        options.method,
        options.form,
        limits=None if given == (None, None, None) else Limits.of(*given),
        to=options.to,
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        base=options.base and only_one(options.base),
        average=options.average and Average(options.average, **averaging),
        architecture=options.architecture,
        **read_ones(options, "method", _OF_METHODS),
        **read_ones(options, "form", OF_FORMS),
    )
    sources = [parse_source(text) for text in options.adapters]
    chosen = selections(len(sources), options.include, options.exclude, options.block_strength)
    addends = [
        Addend(Source(path, source.strength), selection)
        for source, selection in zip(sources, chosen, strict=True)
        for path in expanded([str(source.path)])
    ]
    made = combine_files(addends, output, wanted, overwrite=options.overwrite, progress=counter(output, "modules"))
    print("\n".join(made.lines()))
    write_report(made.report, options.report)
    print(f"{output}: {size_text(os.path.getsize(output))}")
