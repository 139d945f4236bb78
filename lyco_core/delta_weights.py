"""Delta weights: what a file's adapters add to each weight of a model."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .adapter_file import AdapterFile
from .adapter_reader import require_adapters, require_known
from .adapter_set import AdapterSet
from .adapters import OnBase
from .architectures import identify
from .checkpoint_weights import CheckpointWeights
from .errors import AdapterError, Remedy, about_file
from .finite import check_finite
from .io import TensorSpec, write_safetensors
from .io.output import refuse_inputs
from .layouts import Layout
from .model import Model
from .placement import Placement, place
from .selection import EVERYTHING, Selection
from .text import size_text

__all__ = ["delta_weights", "write_delta"]


def delta_weights(placement: Placement, weight: Callable[[str], Tensor] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Each weight's key and its float32 ΔW, at the strengths of the selection, one at a time.

    Rows of a fused weight that no adapter changes are zero.

    Args:
        weight: gives the model's own numbers of a key, from which the change of a DoRA, say, is computed.

    Raises:
        AdapterError: a change cannot be had without the weight, and there is none, or is not finite.
    """
    for key, changes in placement.by_weight.items():
        shape, parts = changes[0][0].shape, [(placed, placement.part(placed), share) for placed, share in changes]
        on_base = next((part for _, part, _ in parts if isinstance(part, OnBase)), None)
        if on_base is None:
            delta = _zeros(key, shape)
            for placed, part, strength in parts:
                part.add_to_(placed.band(delta), strength)
        elif weight is None:
            on_base.refuse("delta weight", Remedy.MODEL)
        else:
            before = weight(key).reshape(shape).double()
            after = before.clone()
            for placed, part, strength in parts:
                part.add_to_(placed.band(after), strength)
            delta = after.sub_(before).float()
        check_finite(key, delta)
        yield key, delta


def _naming(
    source: str | os.PathLike[str],
    placement: Placement,
    weight: Callable[[str], Tensor] | None,
    progress: Callable[[int, int], None],
) -> Iterator[Tensor]:
    """The delta weights; what goes wrong in them is the source's fault, not the output's."""
    with about_file(source):
        for done, (_, delta) in enumerate(delta_weights(placement, weight), 1):
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
        model: a checkpoint, of any family, which gives names, shapes and the weights that a DoRA, say, changes.
        selection: which modules' changes are written.

    Raises:
        LycoError: the file cannot be read or wholly placed, or the output cannot be written.
    """
    with contextlib.ExitStack() as opened:
        weights = None if model is None else opened.enter_context(CheckpointWeights(model))
        onto = None if weights is None else weights.model
        if weights is not None:
            refuse_inputs(output, [file.path for file in weights.checkpoint.files])
        with about_file(source), AdapterFile(source) as file:
            outline = file.outline
            if onto is None:
                outline = require_known(identify(outline, architecture=architecture, layout=layout))
            else:
                outline = require_adapters(onto.identify(outline, architecture))
            _placed(outline, onto, layout, selection)  # before its numbers are read
            placement = _placed(file.read(outline), onto, layout, selection)
        specs = [TensorSpec(key, c[0][0].shape, torch.float32) for key, c in placement.by_weight.items()]
        changes = _naming(source, placement, weights and weights.read, progress)
        write_safetensors(output, specs, changes, {"format": "pt"}, overwrite=overwrite)
    return [spec.key for spec in specs], placement.adapter_set.left_out
