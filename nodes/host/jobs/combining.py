"""Combinations into output/loras, and what a selection leaves of a file, beside it."""

from __future__ import annotations

import itertools
import os
from typing import cast

import torch

from ....lyco_core.approximate.options import Limits
from ....lyco_core.combining import METHODS, Addend, Average, CombineOptions, combine_files
from ....lyco_core.io.names import shortened
from ....lyco_core.io.paths import ENDING
from ....lyco_core.layouts import Layout
from ....lyco_core.merging import Source
from ....lyco_core.selection import Selection
from ....lyco_core.text import size_text
from ..files import NONE, adapter_path, is_listed, output_path
from ..model.lora_model import LORA_MODEL, adapters_of, lora_model_in
from ..model.many import Row
from ..progress import Progress
from .converting import Done
from .model_files import checkpoint_path

AVERAGE = "average"
"""The method that is the average of checkpoints, all alike."""

COMBINE_METHODS = (next(iter(METHODS)), AVERAGE, *list(METHODS)[1:])
"""What the node offers."""

AS_IT_IS = "as it is"
"""What a list offers for leaving something as the files have it."""


def combination(
    method: str, form: str, rank: int, *, density: float, seed: int, to: str, dtype: str, base: str
) -> CombineOptions:
    """The widgets' values as options; rank 0 means exact, density 0 the method's own. Raises `LycoError`."""
    return CombineOptions(
        "sum" if method == AVERAGE else method,
        None if form == AS_IT_IS else form,
        Limits(rank) if rank else None,
        to=None if to == AS_IT_IS else cast(Layout, to),
        dtype=None if dtype == AS_IT_IS else getattr(torch, dtype),
        base=None if base == NONE else checkpoint_path(base),
        density=density or None,
        seed=seed,
        average=Average() if method == AVERAGE else None,
    )


def combine(
    rows: list[Row],
    options: CombineOptions,
    filename: str,
    *,
    overwrite: bool,
    lora: object = None,
    lora_strength: float = 1.0,
) -> Done:
    """Combine files of models/loras, and a LORA_MODEL after them.

    Raises:
        LycoError: a file is bad or does not fit the others, or `filename` is taken or not allowed.
    """
    used = [row for row in rows if row.takes_part]
    addends = [Addend(Source(adapter_path(row.name), row.strength)) for row in used]
    if lora is not None:
        addends.append(Addend(Source(LORA_MODEL, lora_strength), adapters=adapters_of(lora, LORA_MODEL)))
    stem = os.path.splitext(os.path.basename(used[0].name))[0] if used else "adapters"
    name, output = output_path("loras", filename or f"{shortened(stem)}_combined")
    made = combine_files(addends, output, options, overwrite=overwrite, progress=Progress())
    report = "\n".join([f"{name} (output/loras), {size_text(os.path.getsize(output))}", *made.lines()])
    return Done(name, report, lora_model_in(output, made.adapter_set))


def save_selected(name: str, selection: Selection) -> str:
    """Write what a selection leaves of a file in models/loras, at its strengths, into a new one beside it.

    Exact, by the scales of the factors: at any strength the new file does what the old one does with the selection.

    Returns:
        Its name for the loaders: that of the file with `_blocks`, and a number where there is such a file.

    Raises:
        LycoError: the file is bad, a pattern matches nothing, a change depends on the model's weights and is to have
            another strength, or the folder cannot be written to.
    """
    path = adapter_path(name)
    new = _free_name(name)
    output = os.path.join(os.path.dirname(path), os.path.basename(new))
    combine_files([Addend(Source(path), selection)], output, CombineOptions())
    return new


def _free_name(name: str) -> str:
    """The name of a new file beside one of models/loras, which the loaders have in no other folder either."""
    folder = os.path.dirname(adapter_path(name))
    stem, _ = os.path.splitext(os.path.basename(name))
    for number in itertools.count(1):
        new = f"{shortened(stem)}_blocks{f'_{number}' if number > 1 else ''}{ENDING}"
        listed = os.path.join(os.path.dirname(name), new)
        if not os.path.lexists(os.path.join(folder, new)) and not is_listed("loras", listed):
            return listed
    raise AssertionError
