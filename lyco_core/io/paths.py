"""Paths of safetensors files: in folders, and as people write them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from ..errors import FileError
from ..text import shorten

__all__ = ["ENDING", "expanded", "files_in", "is_safetensors", "only_one", "with_ending", "without_ending"]

ENDING = ".safetensors"

_ENDINGS = (ENDING, ".sft", ".safetensors.index.json")
"""Those of a file that ComfyUI lists as safetensors, and of the index of one in several pieces."""


def is_safetensors(path: str) -> bool:
    """Whether a file is one by its name, in any case; `._NAME` is what macOS keeps beside NAME on other disks."""
    return path.lower().endswith(ENDING) and not is_apple_double(path)


def is_apple_double(path: str) -> bool:
    """Whether macOS made the file beside the one that it seems to be."""
    return os.path.basename(path).startswith("._")


def without_ending(path: str, ending: str = ENDING) -> str:
    """`path` less its ending, in any case."""
    return path[: -len(ending)] if path.lower().endswith(ending) else path


def with_ending(path: str, *others: str) -> str:
    """`path`, with the ending by which ComfyUI lists the file, whatever else its name ends in: `style_v1.5`, say.

    No name and a folder's stay as they are, for whoever writes to refuse; a name with one of `others` too.
    """
    named = os.path.basename(path) and not os.path.isdir(path)
    return path + ENDING if named and not path.lower().endswith((*_ENDINGS, *others)) else path


def expanded(names: Iterable[str]) -> list[str]:
    """Files and folders by name or by a pattern such as `*.safetensors`: Windows' shells leave these to programs.

    Raises:
        FileError: a pattern that matches nothing.
    """
    return [path for name in names for path in _matches(name)]


def files_in(folder: str) -> list[str]:
    """The safetensors files in a folder and in those below it that are not hidden, in order: their names from there.

    Links to folders are followed, as ComfyUI does: models are often kept elsewhere.
    """
    found: list[str] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # caches: .lyco_cache
        found += (os.path.relpath(os.path.join(place, name), folder) for name in sorted(names) if is_safetensors(name))
    return found


def only_one(name: str) -> str:
    """The one file that a name or a pattern means; see `expanded`. Raises `FileError` if a pattern matches several."""
    found = _matches(name)
    if len(found) > 1:
        raise FileError(f"{name}: matches {len(found)} files ({shorten(found)}), expected one; name it")
    return found[0]


def _matches(name: str) -> list[str]:
    if not glob.has_magic(name) or os.path.lexists(name):  # `style [v2].safetensors` is a name
        return [name]
    found = sorted(path for path in glob.glob(name, recursive=True) if not is_apple_double(path))
    if not found:
        raise FileError(f"{name}: there is no such file, and as a pattern it matches none")
    return found
