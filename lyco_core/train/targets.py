"""Which modules of a model are trained, wherever its layout keeps their rows: Musubi Tuner's, of what that trains."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence

from ..architectures import Architecture, TrainedFamily
from ..architectures.table import Target as Place
from ..errors import TrainError
from ..model import Model
from ..patterns import PatternError, matches
from ..text import shorten
from .network_options import NetworkOptions

__all__ = ["TargetChoice", "TargetModule", "choose_targets", "require_trainable"]

logger = logging.getLogger("lyco")


@dataclasses.dataclass(frozen=True)
class TargetModule:
    """A module that is trained, and the rows of the weight that it changes."""

    module_path: str
    """Its name in Musubi's layout."""
    key: str
    """That of the weight in the model, e.g. `diffusion_model.layers.0.attention.qkv.weight`."""
    rows: tuple[int, int] | None
    """start:stop in the weight; None for all of them."""
    shape: tuple[int, int]
    """(out, in) of what is trained: of the rows, where there are such."""


@dataclasses.dataclass(frozen=True)
class TargetChoice:
    """What of a model is trained, in the order of its blocks, and what is not."""

    architecture: Architecture
    trained: TrainedFamily
    targets: tuple[TargetModule, ...]
    excluded: tuple[tuple[TargetModule, str], ...]
    """What could be trained too, and the pattern that leaves it out."""
    blocks: Mapping[str, int]
    """Start of a block's name in Musubi's layout -> how many the model has."""


def choose_targets(
    weights: Model, options: NetworkOptions, *, architecture: Architecture | None = None
) -> TargetChoice:
    """The modules that are trained in a model of this family, by the family's own patterns, Musubi's, and a person's.

    A module inside the family's blocks is left out if an exclude pattern, the family's or the
    person's, matches its whole dotted name and no include pattern does. So include patterns bring
    back what is excluded and never narrow the choice: to train attention alone, exclude `.*` and
    include `.*attn.*`. (Musubi's page says "include only"; its code does this.) Musubi's LoRA for
    FLUX drops a default of its own once a person excludes something; here defaults always hold.

    Args:
        weights: of the model, in any layout that keeps each module on one weight.
        architecture: the family, if it is not the one that the weights tell; its Musubi names are
            looked for in their layout.

    Raises:
        TrainError: the family is unknown or not trained, a module lies on several weights, a
            pattern takes too long, or nothing is left.
    """
    family, trained = require_trainable(architecture or weights.architecture)
    blocks = {block: list(_blocks(family, weights, block)) for block in family.depths}
    candidates = [target for found in blocks.values() for block in found for target in block]
    candidates += _outside(family, trained, weights)
    excludes = (*options.exclude_patterns, *trained.excludes)
    matched = _names_matched_by((*options.include_patterns, *excludes), [target.module_path for target in candidates])
    for pattern in (*options.exclude_patterns, *options.include_patterns):
        if not matched[pattern]:
            many = len(candidates)
            logger.warning("the pattern %r matches none of the %d modules that could be trained", pattern, many)
    targets: list[TargetModule] = []
    excluded: list[tuple[TargetModule, str]] = []
    for target in candidates:
        pattern = next((pattern for pattern in excludes if target.module_path in matched[pattern]), None)
        if pattern is None or any(target.module_path in matched[again] for again in options.include_patterns):
            targets.append(target)
        else:
            excluded.append((target, pattern))
    if not targets:
        raise TrainError(
            f"the patterns leave nothing of {family.title} to train; they must match whole names, such as "
            f"{shorten([target.module_path for target in candidates])}"
        )
    counts = {block: len(found) for block, found in blocks.items()}
    return TargetChoice(family, trained, tuple(targets), tuple(excluded), counts)


def require_trainable(family: Architecture | None) -> tuple[Architecture, TrainedFamily]:
    """The family, and how it is trained. Raises `TrainError` if it is unknown or not trained."""
    if family is None:
        raise TrainError(
            "the model's architecture is unknown, so it is unknown which of its modules to train; load a model of a "
            "family that is trained here"
        )
    if family.musubi_lora_only and family.training is None:
        raise TrainError(
            f"{family.title}: Musubi Tuner trains it with LoRA only, and which modules it trains is not known here: "
            "train it there, load it here"
        )
    if family.training is None:
        raise TrainError(
            f"{family.title}: its adapters are used here but not trained; train it elsewhere, load it here"
        )
    return family, family.training


def _blocks(family: Architecture, weights: Model, block: str) -> Iterator[list[TargetModule]]:
    """Every linear module that the model has of each of its blocks whose name starts so."""
    inside = [name for name in family.templates("musubi") if name.startswith(f"{block}.{{n}}.")]
    for number in itertools.count():
        names = [name.replace("{n}", str(number)) for name in inside]
        there = _there(family, names, weights)
        if not there:
            return
        yield [_target(name, places, weights) for name, places in there if _is_matrix(places, weights)]


def _outside(family: Architecture, trained: TrainedFamily, weights: Model) -> list[TargetModule]:
    """Every linear module that the model has outside of its blocks, where the family's are trained too."""
    names = [name for name in family.templates("musubi") if "{n}" not in name]
    names = [name for name in names if any(re.fullmatch(pattern, name) for pattern in trained.outside)]
    found = _there(family, names, weights)
    return [_target(name, places, weights) for name, places in found if _is_matrix(places, weights)]


def _there(family: Architecture, names: Sequence[str], weights: Model) -> list[tuple[str, list[Place]]]:
    located = [(name, family.locate(name, "musubi", weights.layout)) for name in names]
    return [(name, places) for name, places in located if any(place.path in weights.paths for place in places)]


def _is_matrix(places: Sequence[Place], weights: Model) -> bool:
    """Whether it is no convolution, of which none is trained."""
    return len(places) > 1 or len(weights.shapes[f"{weights.prefix}{places[0].path}.weight"]) == 2


def _target(name: str, places: Sequence[Place], weights: Model) -> TargetModule:
    key = f"{weights.prefix}{places[0].path}.weight"
    if len(places) > 1:
        raise TrainError(
            f"{name} lies on {len(places)} weights ({', '.join(place.path for place in places)}) in the "
            f"{weights.layout} layout; load the model in ComfyUI's or Musubi's"
        )
    shape = weights.shapes[key]
    start, stop, total = places[0].rows
    if (start, stop) == (0, total):
        return TargetModule(name, key, None, (shape[0], shape[1]))
    if shape[0] % total:
        raise TrainError(f"{key} is {list(shape)}, expected a matrix of a multiple of {total} rows")
    rows = (shape[0] * start // total, shape[0] * stop // total)
    return TargetModule(name, key, rows, (rows[1] - rows[0], shape[1]))


def _names_matched_by(patterns: Sequence[str], names: Sequence[str]) -> dict[str, frozenset[str]]:
    try:
        return matches(patterns, names)
    except PatternError as error:
        raise TrainError(str(error)) from None
