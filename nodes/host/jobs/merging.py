"""Adapters into a checkpoint file of the models folders: a new file under output, streamed."""

from __future__ import annotations

import logging
import os

import comfy.model_management
import folder_paths
import torch

from ....lyco_core.io.names import shortened
from ....lyco_core.merging import MergeOptions, Source, merge_checkpoint
from ....lyco_core.merging.options import parse_source
from ....lyco_core.quantized import NEW_FORMS
from ....lyco_core.selection import Selection
from ....lyco_core.text import clipped, counted, one_line, size_text
from ..files import adapter_path, output_path
from ..progress import Progress
from ..schema import lines
from .combining import AS_IT_IS
from .model_files import FOLDERS, checkpoint_path

log = logging.getLogger("lyco")

QUANTIZED_FORMS = tuple(NEW_FORMS)
"""What a base in floating point can be stored as."""


def adapter_list(adapter: str, strength: float, more: str) -> list[tuple[str, float]]:
    """(name, strength) of the chosen adapter, and of each line `NAME` or `NAME@STRENGTH` of `more`."""
    found = [(adapter, strength)]
    for line in lines(more):
        known = folder_paths.get_full_path("loras", line) is not None
        source = Source(line) if known else parse_source(line)
        found.append((str(source.path), source.strength))
    return found


def merge_options(
    selection: Selection, *, dtype: str, quantize: str, rounding_seed: int, gpu: bool, partial: bool
) -> MergeOptions:
    """The options of a merge; `as it is` keeps each tensor's own dtype or form, a seed below 0 rounds to nearest."""
    return MergeOptions(
        selection,
        dtype=getattr(torch, dtype) if dtype != AS_IT_IS else None,
        quantize=quantize if quantize != AS_IT_IS else None,
        seed=rounding_seed if rounding_seed >= 0 else None,
        device=str(comfy.model_management.get_torch_device()) if gpu else "cpu",
        partial=partial,
    )


def merge_files(
    base: str, adapters: list[tuple[str, float]], options: MergeOptions, filename: str, *, overwrite: bool
) -> tuple[str, str]:
    """Merge files of models/loras into one of `checkpoint_names`; (the new file's name, what was done).

    Raises:
        LycoError: a file is bad or does not fit, or `filename` is taken or not allowed.
    """
    path = checkpoint_path(base)
    folder = FOLDERS[base.partition("/")[0]]
    suffix = ".gguf" if path.endswith(".gguf") and options.dtype is None else ".safetensors"
    sources = [Source(adapter_path(name), strength) for name, strength in adapters]
    stems = [os.path.splitext(os.path.basename(name))[0] for name in (path, *(name for name, _ in adapters))]
    name, output = output_path(folder, filename or shortened("_".join(stems)), suffix)
    made = merge_checkpoint(path, sources, output, options, overwrite=overwrite, progress=Progress())
    lines = [f"{name} (output/{folder}): {made.weights} of {made.tensors} tensors changed, {size_text(made.bytes)}"]
    per_adapter = zip(adapters, made.modules, made.ignored, made.left_out, strict=True)
    for (adapter, strength), modules, ignored, left_out in per_adapter:
        taken = f"{adapter}: {counted(modules, 'module')} at strength {strength:g}"
        lines.append("; left out: ".join([taken, *ignored]))
        if left_out:
            lines.append(f"left out: {one_line(clipped(left_out))}")
            log.warning("%s: left out: %s", adapter, one_line(clipped(left_out)))
    return name, "\n".join([*lines, *made.quantized, *made.survival])
