"""`lyco combine`: one adapter out of several."""

from __future__ import annotations

import argparse

from ..layouts import LAYOUTS
from ..text import size_text
from .common import (
    Commands,
    add_architecture,
    add_limits,
    add_output,
    add_report,
    counter,
    given_limits,
    given_output,
    require_report,
    write_report,
)

__all__ = ["add"]


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
    parser.add_argument("--factor", type=int, default=-1, help="of a LoKr: one side of W1; -1 splits evenly [-1]")
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
    group.add_argument("--beta", metavar="X", type=float, default=0.95, help="of ema: the decay [%(default)s]")
    group.add_argument(
        "--sigma-rel", metavar="X", type=float, default=0.1, help="of post-hoc: the relative width [%(default)s]"
    )
    group.add_argument(
        "--average-on",
        choices=("auto", "factors", "weights"),
        default="auto",
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
    group.add_argument(
        "--epsilon", metavar="X", type=float, default=0.2, help="of della: the range of probabilities [%(default)s]"
    )
    group.add_argument(
        "--gamma",
        metavar="SHARE",
        type=float,
        default=0.007,
        help="of breadcrumbs: the largest numbers, left out [%(default)s]",
    )
    group.add_argument("--seed", metavar="N", type=int, default=0, help="of dare and della [%(default)s]")


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
    wanted = CombineOptions(
        options.method,
        options.form,
        limits=None if given == (None, None, None) else Limits.of(*given),
        factor=options.factor,
        to=options.to,
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        base=options.base and only_one(options.base),
        density=options.density,
        epsilon=options.epsilon,
        gamma=options.gamma,
        seed=options.seed,
        average=options.average and Average(options.average, options.beta, options.sigma_rel, options.average_on),
        architecture=options.architecture,
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
