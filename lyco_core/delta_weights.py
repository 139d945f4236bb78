"""Delta weights: what a file's adapters add to each weight of a model."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .adapter_reader import AdapterFile, check_finite, require_adapters, require_known
from .adapter_set import AdapterSet
from .adapters import OnBase
from .architectures import identify
from .errors import AdapterError, about_file
from .io import TensorSpec, write_safetensors
from .layouts import Layout
from .model import Model
from .placement import Placement, place
from .selection import EVERYTHING, Selection
from .text import size_text

__all__ = ["delta_weights", "write_delta"]


def delta_weights(placement: Placement) -> Iterator[tuple[str, Tensor]]:
    """Each weight's key and its float32 ΔW, at the strengths of the selection, one at a time.

    Rows of a fused weight that no adapter changes are zero.
    """
    for key, changes in placement.by_weight.items():
        delta = _zeros(key, changes[0][0].shape)
        for placed, strength in changes:
            adapter = placement.part(placed)
            if isinstance(adapter, OnBase):
                adapter.refuse("delta weight")
            adapter.add_to_(placed.band(delta), strength)
        check_finite(key, delta)
        yield key, delta


def _naming(
    source: str | os.PathLike[str], placement: Placement, progress: Callable[[int, int], None]
) -> Iterator[Tensor]:
    """The delta weights; what goes wrong in them is the source's fault, not the output's."""
    with about_file(source):
        for done, (_, delta) in enumerate(delta_weights(placement), 1):
            yield delta
            progress(done, len(placement.by_weight))


def _zeros(key: str, shape: tuple[int, ...]) -> Tensor:
    try:
        return torch.zeros(shape)
    except (RuntimeError, MemoryError):
        size = size_text(4 * math.prod(shape))
        raise AdapterError(f"{key}: there is no memory for a weight of {list(shape)}, {size}") from None


def _placed(adapters: AdapterSet, model: Model | None, layout: Layout, selection: Selection) -> Placement:
    placement = place(adapters, layout=layout) if model is None else model.place(adapters)
    return placement.select(selection).require_complete()


def write_delta(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    layout: Layout = "comfyui",
    model: str | os.PathLike[str] | None = None,
    architecture: str | None = None,
    selection: Selection = EVERYTHING,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[str], list[str]]:
    """Write the delta weights of an adapter file as safetensors; returns their keys, and what `left_out` says.

    Weights are computed and written one at a time: memory holds the adapters and one of them. `progress` is called
    with the weights that are done and all there are.

    Args:
        layout: whose names the weights have, where no model says.
        model: a checkpoint, whose header gives names and shapes; it may be of no family that is known here.
        selection: which modules' changes are written.

    Raises:
        LycoError: the file cannot be read or wholly placed, or the output cannot be written.
    """
    onto = None if model is None else Model.of_file(model)
    with about_file(source), AdapterFile(source) as file:
        outline = file.outline
        if onto is None:
            outline = require_known(identify(outline, architecture=architecture, layout=layout))
        else:
            outline = require_adapters(onto.identify(outline, architecture))
        _placed(outline, onto, layout, selection)  # before its numbers are read
        placement = _placed(file.read(outline), onto, layout, selection)
        specs = [TensorSpec(key, c[0][0].shape, torch.float32) for key, c in placement.by_weight.items()]
    write_safetensors(output, specs, _naming(source, placement, progress), {"format": "pt"}, overwrite=overwrite)
    return [spec.key for spec in specs], placement.adapter_set.left_out
