"""Jobs on the weights of a model: what adapters add to them, checkpoints with adapters in them, and the way back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ..adapter_reader import read_adapter_set, require_adapters, require_known
from ..adapter_set import AdapterSet
from ..approximate.extract import extract_file
from ..approximate.options import ExtractOptions, Limits
from ..approximate.report import Report
from ..architectures import identify
from ..checkpoint_weights import CheckpointWeights
from ..delta_weights import delta_weights
from ..errors import about_file
from ..layouts import Layout
from ..merging import MergeOptions, Source, merge_checkpoint
from ..merging.merge import Merged
from ..model import Model
from ..placement import place
from ..selection import EVERYTHING, Selection
from . import Path, Progress, silent

__all__ = ["delta", "extract", "merge"]


def delta(
    adapters: AdapterSet | Path,
    *,
    layout: Layout = "comfyui",
    model: Path | Model | None = None,
    architecture: str | None = None,
    selection: Selection = EVERYTHING,
) -> dict[str, Tensor]:
    """What adapters add to each weight of a model at strength 1: the weight's key -> ΔW in float32.

    Args:
        adapters: a file, or what `load` gives.
        layout: whose names the keys are, where no model says.
        model: a checkpoint, or `Model.of` a state dict, of any family: the keys are its own.
        architecture: the model family, where names and shapes fit several.
        selection: which modules' changes are wanted.

    Raises:
        LycoError: the file is bad, something has no place, or depends on the weight itself (DoRA, say) and no
            checkpoint says what that is.
    """
    with contextlib.ExitStack() as opened:
        weights: CheckpointWeights | None = None
        if isinstance(model, Model) or model is None:
            onto = model
        else:
            weights = opened.enter_context(CheckpointWeights(model))
            onto = weights.model
        if isinstance(adapters, AdapterSet):
            found = adapters
        else:
            opened.enter_context(about_file(adapters))
            found = read_adapter_set(adapters)
        if onto is None:
            placement = place(require_known(identify(found, architecture=architecture, layout=layout)), layout=layout)
        else:
            placement = onto.place(require_adapters(onto.identify(found, architecture)))
        return dict(delta_weights(placement.select(selection).require_complete(), weights and weights.read))


def merge(
    base: Path,
    adapters: Mapping[str, float],
    output: Path,
    *,
    selection: Selection = EVERYTHING,
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
    seed: int | None = None,
    device: str = "cpu",
    max_shard_bytes: int | None = None,
    architecture: str | None = None,
    partial: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Merged:
    """Write a checkpoint with adapters added to its weights, in a few bands of rows at a time.

    Args:
        base: a safetensors or GGUF file, one of its shards, their index, or a folder with one of these.
        adapters: file -> strength, in the order in which they are added; below 0 takes one away.
        output: the file to write, or an index for shards like the base's.
        selection: which modules take part, and how strongly.
        dtype: storage dtype of a plain file; by default everything is stored as it is in the base.
        quantize: int8_convrot, fp8_scaled, mxfp8, nvfp4 or w4a8, in which the Linears of a base in floating point are
            stored then, those that ComfyUI's own files of the model have so.
        seed: round stochastically with it, instead of to the nearest.
        device: where the arithmetic is done.
        max_shard_bytes: split what is written into files of at most this size.
        architecture: the adapters' model family, where names and shapes fit several.
        partial: merge what has a place and tell of the rest, instead of refusing.
        overwrite: replace a file that is there.
        progress: called with bytes written and in total; what it raises ends it.

    Raises:
        LycoError: an input is bad or does not fit, or the output cannot be written; then there is none.
    """
    options = MergeOptions(selection, dtype, quantize, seed, device, max_shard_bytes, architecture, partial)
    sources = [Source(path, strength) for path, strength in adapters.items()]
    return merge_checkpoint(base, sources, output, options, overwrite=overwrite, progress=progress)


def extract(
    base: Path,
    tuned: Path,
    output: Path,
    algorithm: Literal["lora", "loha", "lokr"] = "lora",
    *,
    rank: int | None = None,
    energy: float | None = None,
    max_error: float | None = None,
    factor: int = -1,
    selection: Selection = EVERYTHING,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress = silent,
) -> Report:
    """Write the adapter that turns one checkpoint into another, an approximation whose error is measured.

    Args:
        base, tuned: safetensors files, shards, indices, or folders with one of these.
        rank: of at most this rank.
        energy: a LoRA of the least rank that keeps this share of the squared norm.
        max_error: a LoRA of the least rank of this relative error; with `rank` both hold.
        factor: of a LoKr: one side of W1; -1 splits evenly. A LoKr without a rank has a full W2.
        selection: which weights.
        dtype: storage dtype; its rounding counts in the error.
        device: where the arithmetic is done.
        overwrite: replace a file that is there.
        progress: called with the weights that are done and all there are; what it raises ends it.

    Raises:
        LycoError: the two are not of one shape, nothing differs, or the output cannot be written; then there is none.
    """
    full = algorithm == "lokr" and rank is None and energy is None and max_error is None
    limits = None if full else Limits.of(rank, energy, max_error)
    options = ExtractOptions(algorithm, limits, factor, selection, dtype, device)
    return extract_file(base, tuned, output, options, overwrite=overwrite, progress=progress)
