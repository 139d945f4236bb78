"""Conversions into output/loras."""

from __future__ import annotations

import os

import torch

from ....lyco_core.approximate.options import Limits
from ....lyco_core.conversion import ConvertOptions, convert_file
from ....lyco_core.io.names import shortened
from ....lyco_core.layouts import Layout
from ....lyco_core.text import size_text
from ..files import adapter_path, output_path
from ..progress import Progress


def conversion(to: Layout, *, as_lora: bool, rank: int, dtype: str) -> ConvertOptions:
    """The widgets' values as options; rank 0 and dtype `as it is` mean exact."""
    small = Limits(rank) if rank else None
    return ConvertOptions(to, as_lora, small, getattr(torch, dtype) if dtype != "as it is" else None)


def convert(name: str, options: ConvertOptions, filename: str, *, overwrite: bool) -> tuple[str, str]:
    """Convert a file of models/loras; (the new file's name for the loaders, what was done).

    Raises:
        LycoError: the file is bad, does not fit the layout, or `filename` is taken or not allowed.
    """
    source = adapter_path(name)
    stem = os.path.splitext(os.path.basename(name))[0]
    new, output = output_path("loras", filename or f"{shortened(stem)}_{options.to}")
    made = convert_file(source, output, options, overwrite=overwrite, progress=Progress())
    sizes = " -> ".join(size_text(os.path.getsize(path)) for path in (source, output))
    return new, f"{new} (output/loras): {made.summary()}; {sizes}"
