"""Whole jobs of `import lyco_core as lyco`: each a call with plain arguments, of the room that does the work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from .adapter_reader import read_adapter_set, require_adapters, require_known
from .adapter_set import AdapterSet
from .adapter_writer import save_adapter_set
from .approximate.extract import extract_file
from .approximate.options import ExtractOptions, Limits
from .approximate.report import Report
from .approximate.resize import resize_file
from .architectures import identify
from .checkpoint_weights import CheckpointWeights
from .combining import Addend, Average, Combination, CombineOptions, combine_files
from .conversion import Conversion, ConvertOptions, convert_file, convert_set
from .delta_weights import delta_weights
from .errors import about_file
from .io import refuse_existing
from .layouts import Layout
from .merging import MergeOptions, Source, merge_checkpoint
from .merging.merge import Merged
from .model import Model
from .placement import place
from .selection import EVERYTHING, Selection

__all__ = ["combine", "convert", "delta", "extract", "merge", "resize", "save"]

Path = str | os.PathLike[str]
Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """The progress of a job that nobody watches."""


def save(
    adapters: AdapterSet,
    output: Path,
    *,
    to: Layout,
    as_lora: bool = False,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Write adapters as a file for the tools that know a layout: Musubi Tuner, ComfyUI, diffusers and PEFT.

    Args:
        adapters: what `load` gives.
        to: whose module names the file is to have.
        as_lora: every adapter as the LoRA that equals it, which is all that diffusers itself reads.
        dtype: storage dtype; by default each tensor's own.
        overwrite: replace a file that is there.

    Raises:
        LycoError: something has no place in the layout, or the file cannot be written; then there is none.
    """
    with about_file(output):
        refuse_existing(output, overwrite=overwrite)
        conversion = convert_set(identify(adapters, layout=to), ConvertOptions(to, as_lora=as_lora, dtype=dtype))
        save_adapter_set(conversion.adapter_set, output, overwrite=overwrite)
    return conversion


def convert(
    source: Path,
    output: Path,
    *,
    to: Layout,
    as_lora: bool = False,
    rank: int | None = None,
    max_error: float | None = None,
    dtype: torch.dtype | None = None,
    architecture: str | None = None,
    selection: Selection = EVERYTHING,
    overwrite: bool = False,
    progress: Progress = _silent,
) -> Conversion:
    """Write an adapter file in another layout: losslessly, unless a rank, an error or a dtype is asked for.

    Args:
        to: whose module names the new file is to have.
        as_lora: every adapter as the LoRA that equals it.
        rank: the best LoRAs of at most this rank.
        max_error: the smallest LoRAs of at most this relative error; with `rank` both hold.
        dtype: storage dtype; by default each tensor's own.
        architecture: the model family, where names and shapes fit several.
        selection: which modules are written.
        overwrite: replace a file that is there.
        progress: called with the modules that are done and all there are; what it raises ends it.

    Raises:
        LycoError: the file is bad, does not fit the layout, or cannot be written; then there is none.
    """
    limits = None if rank is None and max_error is None else Limits(rank, max_error)
    options = ConvertOptions(to, as_lora=as_lora, limits=limits, dtype=dtype, selection=selection)
    return convert_file(source, output, options, architecture=architecture, overwrite=overwrite, progress=progress)


def combine(
    adapters: Mapping[Path, float] | Sequence[Path],
    output: Path,
    *,
    method: str = "sum",
    algorithm: Literal["lora", "loha", "lokr"] | None = None,
    rank: int | None = None,
    energy: float | None = None,
    max_error: float | None = None,
    factor: int = -1,
    selections: Mapping[Path, Selection] | None = None,
    average: Average | None = None,
    base: Path | None = None,
    density: float | None = None,
    epsilon: float = 0.2,
    gamma: float = 0.007,
    seed: int = 0,
    to: Layout | None = None,
    dtype: torch.dtype | None = None,
    architecture: str | None = None,
    overwrite: bool = False,
    progress: Progress = _silent,
) -> Combination:
    """Write one adapter file that does what several do together: exactly, where they add up and no size is asked for.

    Memory does not grow with the files. Of a large result, what is returned has its numbers in a nameless file in the
    output's folder, which is gone when it is let go.

    Args:
        adapters: file -> strength, or files, each at 1; of any formats and algorithms, for one model family.
        method: `sum`, or `ties`, `dare`, `della`, `breadcrumbs`, `slerp` (of two) or `knots`.
        algorithm: what every module becomes; None: each what it can stay.
        rank: of at most this rank.
        energy: LoRAs of the least rank that keeps this share of the squared norm.
        max_error: LoRAs of the least rank of this relative error; with `rank` both hold.
        factor: of a LoKr: one side of W1; -1 splits evenly. A LoKr without a rank has a full W2.
        selections: which modules of a file take part, and how strongly.
        average: instead of strengths, of checkpoints in the order of their training.
        base: the checkpoint of the model, for DoRA, OFT and others whose change is computed from its weights.
        density: the share of each change's numbers that the method keeps.
        epsilon: of DELLA: how far apart its probabilities are.
        gamma: of Breadcrumbs: the share of the largest numbers that is left out.
        seed: of DARE and DELLA.
        to: whose module names the file is to have; by default the first file's.
        dtype: storage dtype; by default the adapters' own where their numbers stay, float32 elsewhere.
        architecture: the model family, where names and shapes fit several.
        overwrite: replace a file that is there.
        progress: called with the modules that are done and all there are; what it raises ends it.

    Raises:
        LycoError: an input is bad or does not fit, or the output cannot be written; then there is none.
    """
    limited = rank is not None or energy is not None or max_error is not None
    options = CombineOptions(
        method,
        algorithm,
        Limits.of(rank, energy, max_error) if limited else None,
        factor,
        to,
        dtype,
        base,
        density,
        epsilon,
        gamma,
        seed,
        average,
        architecture,
    )
    pairs = adapters.items() if isinstance(adapters, Mapping) else [(path, 1.0) for path in adapters]
    chosen = selections or {}
    addends = [Addend(Source(path, strength), chosen.get(path, EVERYTHING)) for path, strength in pairs]
    return combine_files(addends, output, options, overwrite=overwrite, progress=progress)


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
    progress: Progress = _silent,
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


def resize(
    source: Path,
    output: Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    max_error: float | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    progress: Progress = _silent,
) -> Report:
    """Write an adapter file with less rank, an approximation whose error is measured; every module stays what it is.

    Args:
        rank: of at most this rank.
        energy: the least rank that keeps this share of the squared norm.
        max_error: the least rank of this relative error; with `rank` both hold.
        dtype: of what is resized; by default each module's own.
        overwrite: replace a file that is there.
        progress: called with the modules that are done and all there are; what it raises ends it.

    Raises:
        LycoError: the file is bad, nothing of it can be smaller, or the output cannot be written; then there is none.
    """
    limits = Limits.of(rank, energy, max_error)
    return resize_file(source, output, limits, dtype=dtype, overwrite=overwrite, progress=progress)
