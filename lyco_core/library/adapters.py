"""Jobs that make adapter files of adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from ..adapter_set import AdapterSet
from ..adapter_writer import save_adapter_set
from ..approximate.options import Limits
from ..approximate.report import Report
from ..approximate.resize import resize_file
from ..architectures import identify
from ..combining import Addend, Average, Combination, CombineOptions, combine_files
from ..conversion import Conversion, ConvertOptions, convert_file, convert_set
from ..errors import about_file
from ..io import refuse_existing
from ..layouts import Layout
from ..merging import Source
from ..selection import EVERYTHING, Selection
from . import Path, Progress, silent

__all__ = ["combine", "convert", "resize", "save"]


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
    progress: Progress = silent,
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
    progress: Progress = silent,
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


def resize(
    source: Path,
    output: Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    max_error: float | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
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
