"""Conversions into output/loras, with ComfyUI's progress bar and interruption."""

from __future__ import annotations

import os
import re

import comfy.model_management
import comfy.utils
import folder_paths
import torch

from ...lyco_core.conversion import Options
from ...lyco_core.convert import convert_file
from ...lyco_core.errors import FileError
from .files import adapter_path


def conversion(to: str, *, as_lora: bool, rank: int, dtype: str) -> Options:
    """The widgets' values as options; rank 0 and dtype `as it is` mean exact."""
    return Options(to, as_lora, rank or None, dtype=getattr(torch, dtype) if dtype != "as it is" else None)


def convert(name: str, options: Options, filename: str, *, overwrite: bool) -> tuple[str, str]:
    """Convert a file of models/loras; (the new file's name for the loaders, what was done).

    Raises:
        LycoError: the file is bad, does not fit the layout, or the name is taken or no name.
    """
    source = adapter_path(name)
    new = output_name(filename or f"{os.path.splitext(os.path.basename(name))[0]}_{options.to}")
    output = os.path.join(folder_paths.get_output_directory(), "loras", new)
    taken = folder_paths.get_full_path("loras", new)
    if taken is not None and os.path.abspath(taken) != os.path.abspath(output):
        raise FileError(f"{new}: models/loras has a file of this name, which the loaders would take; choose another")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    bar: list[comfy.utils.ProgressBar] = []

    def progress(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not bar:
            bar.append(comfy.utils.ProgressBar(total))
        bar[0].update_absolute(done, total)

    made = convert_file(source, output, options, overwrite=overwrite, progress=progress)
    sizes = " -> ".join(f"{os.path.getsize(path) / 1e6:.2f} MB" for path in (source, output))
    return new, f"{new} (output/loras): {made.summary()}; {sizes}"


def output_name(filename: str) -> str:
    """A plain file name that ends in .safetensors. Raises `FileError` for one that would lead elsewhere."""
    if not re.fullmatch(r"[^/\\\\:*?\"<>|\x00-\x1f]+", filename) or filename.startswith(".") or len(filename) > 200:
        raise FileError(f"{filename!r}: expected a plain file name, without folders, for output/loras")
    return filename if filename.endswith(".safetensors") else f"{filename}.safetensors"
