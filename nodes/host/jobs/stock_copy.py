"""Copies of adapters for ComfyUI's own loaders, and for packs that load as they do, beside the files."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ....lyco_core.adapter_reader import read_adapter_set
from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.adapter_writer import save_adapter_set
from ....lyco_core.architectures import identify
from ....lyco_core.conversion import ConvertOptions, convert_set, reads_all, require_computed
from ....lyco_core.errors import FileError, Remedy, about_file
from ....lyco_core.formats.grammar import is_text_encoders
from ....lyco_core.io import refuse_existing
from ....lyco_core.io.names import shortened
from ....lyco_core.io.paths import ENDING
from ....lyco_core.layouts import Layout
from ..files import adapter_path, is_listed

FOR_STOCK: Layout = "comfyui"
"""Whose names a copy has."""

MADE_OF = "lyco_stock_copy"
"""In a copy's metadata: size and time of the file that it was made of."""


def stock_copy_of(name: str) -> str:
    """What a copy of a file in models/loras for ComfyUI's own loaders is called, in the same folder."""
    folder, file = os.path.split(name)
    return os.path.join(folder, f"{shortened(os.path.splitext(file)[0])}_{FOR_STOCK}{ENDING}")


def is_stock_copy(metadata: Mapping[str, str], name: str) -> bool:
    """Whether a file with these metadata is the copy of the one of that name, as that is now."""
    return metadata.get(MADE_OF) == _state_of(adapter_path(name))


def _state_of(path: str) -> str:
    status = os.stat(path)
    return f"{status.st_size}:{status.st_mtime_ns}"


def copy_is_of_use(found: AdapterSet) -> bool:
    """Whether ComfyUI's own loaders need another file; told by an outline that is identified.

    A file with a text encoder's part is of a family whose trainers' names they know.
    """
    if found.architecture is None or not found.adapters:
        return False
    return not any(map(is_text_encoders, found.prefixes.values())) and not reads_all(found)


def copy_for_stock(name: str) -> str:
    """Write the copy of a file in models/loras that ComfyUI's own loaders read in full; its name for them.

    Raises:
        LycoError: the file is bad, has no such copy that is exact, or its name is taken.
    """
    source, new = adapter_path(name), stock_copy_of(name)
    output = os.path.join(os.path.dirname(source), os.path.basename(new))
    with about_file(output):
        if is_listed("loras", new):
            raise FileError("is there already", Remedy.OVERWRITE)
        refuse_existing(output, overwrite=False)
    with about_file(source):
        state = _state_of(source)
        found = identify(read_adapter_set(source), layout=FOR_STOCK)
        made = convert_set(found, ConvertOptions(FOR_STOCK), name=os.path.basename(source))
        save_adapter_set(require_computed(made.adapter_set), output, metadata={MADE_OF: state})
    return new
