"""Files in ComfyUI's folders: adapters, the last ones that were read, and where new files go."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from typing import TypeAlias

import comfy.lora_convert
import folder_paths
import torch

from ...lyco_core.adapter_file import AdapterFile
from ...lyco_core.adapter_reader import checkpoint_of
from ...lyco_core.adapter_set import AdapterSet
from ...lyco_core.errors import FileError, FormatError, about_file
from ...lyco_core.formats.peft import CONFIG_FILE
from ...lyco_core.io.names import check_name
from ...lyco_core.io.paths import ENDING, is_apple_double

Stamp: TypeAlias = tuple[str | int, ...]
"""What changes when a file does."""

NONE = "none"
"""What a list of files offers for no file."""

CACHED_FILES = 2
"""Files whose tensors stay in memory, so that a new strength reads nothing."""

_cache: OrderedDict[Stamp, AdapterSet] = OrderedDict()
_lock = threading.Lock()


def adapter_names() -> list[str]:
    """Names of the files in models/loras, as the loaders list them, less what macOS leaves beside them."""
    return [name for name in folder_paths.get_filename_list("loras") if not is_apple_double(name)]


def adapter_path(name: object) -> str:
    """The path of a file in models/loras. Raises `FileError` for anything that is not there."""
    path = folder_paths.get_full_path("loras", name) if isinstance(name, str) else None
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths("loras"))
        raise FileError(f"'{name}': there is no such file in models/loras ({folders}); choose one from the list")
    return path


def fingerprint(name: str | None) -> Stamp | None:
    """The `identity` of a file in models/loras; None for no file, and for a linked name, which is not known yet."""
    return None if name in (None, NONE) else identity(name)


def identity(name: str) -> Stamp:
    """What changes when a file in models/loras does, or PEFT's configuration beside it."""
    path = adapter_path(name)
    beside = os.path.join(os.path.dirname(path), CONFIG_FILE)
    return stamp(path) + (stamp(beside) if os.path.isfile(beside) else ())


def stamp(path: str) -> Stamp:
    """Path, inode, time and size."""
    status = os.stat(path)
    return path, status.st_ino, status.st_mtime_ns, status.st_size


def output_path(folder: str, filename: str, suffix: str = ENDING) -> tuple[str, str]:
    """(name for the loaders, path) of a new file in output/`folder`, which is made.

    Raises:
        FileError: `filename` leads elsewhere, or the loaders would take another file of this name.
    """
    name = filename if filename.lower().endswith(suffix) else filename + suffix
    require_plain(folder, name)
    path = os.path.join(folder_paths.get_output_directory(), folder, name)
    taken = folder_paths.get_full_path(folder, name)
    if taken is not None and os.path.abspath(taken) != os.path.abspath(path):
        raise FileError(
            f"{name}: models/{folder} has a file of this name, which the loaders would take; choose another"
        )
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return name, path


def require_plain(folder: str, filename: str) -> None:
    """Raise `FileError` if `filename` leads elsewhere than into output/`folder`, or is no name that disks take."""
    if "/" in filename or "\\" in filename or filename.startswith("."):
        raise FileError(f"'{filename}': expected a plain file name, without folders, for output/{folder}")
    with about_file(filename):
        check_name(filename)


def is_listed(folder: str, name: str) -> bool:
    """Whether the loaders have a file of this name."""
    return folder_paths.get_full_path(folder, name) is not None


def cached_adapter_set(name: str, file: AdapterFile | None = None) -> AdapterSet:
    """The file's adapters with their tensors, read again only if the file has changed.

    Args:
        file: where it is open already.
    """
    path, found = adapter_path(name), identity(name)
    with _lock:
        if found not in _cache:
            with AdapterFile(path) if file is None else contextlib.nullcontext(file) as opened:
                # A checkpoint in models/loras is told by its header, before its gigabytes are read.
                if not opened.keys.modules and (what := checkpoint_of(opened.outline)):
                    raise FormatError(f"is no adapter but {what}; load it with a model loader")
                # Nodes run in inference mode; tensors made there could not be trained from later.
                with torch.inference_mode(False):
                    _cache[found] = opened.read(rename=comfy.lora_convert.convert_lora)
            while len(_cache) > CACHED_FILES:
                _cache.popitem(last=False)
        _cache.move_to_end(found)
        return _cache[found]
