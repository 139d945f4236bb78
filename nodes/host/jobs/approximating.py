"""Extractions and resizings into output/loras."""

from __future__ import annotations

import os

import torch

from ....lyco_core.approximate.extract import extract_file
from ....lyco_core.approximate.options import ExtractOptions, Limits
from ....lyco_core.approximate.report import Report
from ....lyco_core.approximate.resize import resize_file
from ....lyco_core.io.names import shortened
from ..files import adapter_path, output_path
from ..progress import Progress
from .model_files import checkpoint_path


def limits(by: str, rank: int, share: float) -> Limits:
    """How small a result is to be, from the widgets' values; `share` is the energy kept, or the relative error."""
    return Limits.of(
        rank if by == "rank" else None, share if by == "energy" else None, share if by == "error" else None
    )


def extract(
    base: str, tuned: str, form: str, small: Limits | None, factor: int, dtype: str, filename: str, *, overwrite: bool
) -> tuple[str, str]:
    """Extract from two of `checkpoint_names`; (the new file's name for the loaders, the report).

    Raises:
        LycoError: the two do not compare, or `filename` is taken or not allowed.
    """
    paths = checkpoint_path(base), checkpoint_path(tuned)
    stem = os.path.splitext(os.path.basename(tuned))[0]
    name, output = output_path("loras", filename or f"{shortened(stem)}_{form}")
    options = ExtractOptions(form, small, factor, dtype=getattr(torch, dtype))
    return name, _report_text(name, extract_file(*paths, output, options, overwrite=overwrite, progress=Progress()))


def resize(adapter: str, small: Limits, filename: str, *, overwrite: bool) -> tuple[str, str]:
    """Resize a file of models/loras; (the new file's name for the loaders, the report).

    Raises:
        LycoError: the file is bad, nothing of it can be smaller, or `filename` is taken or not allowed.
    """
    source = adapter_path(adapter)
    stem = os.path.splitext(os.path.basename(adapter))[0]
    name, output = output_path("loras", filename or f"{shortened(stem)}_small")
    return name, _report_text(name, resize_file(source, output, small, overwrite=overwrite, progress=Progress()))


def _report_text(name: str, report: Report) -> str:
    return "\n".join([f"{name} (output/loras)", *report.lines()])
