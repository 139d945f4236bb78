"""Conversions into output/loras."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.approximate.options import Limits
from ....lyco_core.conversion import (
    ConvertOptions,
    convert_adapters,
    convert_file,
)
from ....lyco_core.errors import about_file
from ....lyco_core.io import refuse_existing
from ....lyco_core.io.names import shortened
from ....lyco_core.layouts import Layout
from ....lyco_core.text import size_text
from ..files import adapter_path, output_path
from ..model.lora_model import LORA, LoraModel, lora_model_of, no_lora
from ..progress import Progress


class Done(NamedTuple):
    """What a node returns that makes an adapter file."""

    name: str
    """The new file's, for the loaders."""
    report: str
    lora: LoraModel


def conversion(to: Layout, *, as_lora: bool, rank: int, dtype: str) -> ConvertOptions:
    """The widgets' values as options; rank 0 and dtype `as it is` mean exact."""
    small = Limits(rank) if rank else None
    return ConvertOptions(to, as_lora, small, getattr(torch, dtype) if dtype != "as it is" else None)


def convert(
    name: str, options: ConvertOptions, filename: str, *, overwrite: bool, adapters: AdapterSet | None = None
) -> Done:
    """Convert a file of models/loras, or adapters of no file.

    Raises:
        LycoError: the file is bad, does not fit the layout, or `filename` is taken or not allowed.
    """
    source = LORA if adapters is not None else adapter_path(name)
    stem = os.path.splitext(os.path.basename(source))[0]
    new, output = output_path("loras", filename or f"{shortened(stem)}_{options.to}")
    if adapters is None:
        made = convert_file(source, output, options, overwrite=overwrite, progress=Progress())
    else:
        with about_file(output):
            refuse_existing(output, overwrite=overwrite)
        with about_file(LORA):
            made = convert_adapters(adapters, output, options, name=LORA, overwrite=overwrite, progress=Progress())
    files = [output] if adapters is not None else [source, output]
    sizes = " -> ".join(size_text(os.path.getsize(path)) for path in files)
    return Done(new, f"{new} (output/loras): {made.summary()}; {sizes}", _lora(made.adapter_set, options.to))


def _lora(made: AdapterSet, to: Layout) -> LoraModel:
    """The same as a LORA_MODEL; only of the layout that it has itself, since everyone would wait for another one."""
    return (
        lora_model_of(made) if to == "comfyui" else no_lora(f"its names are ComfyUI's own; set to to comfyui, not {to}")
    )
