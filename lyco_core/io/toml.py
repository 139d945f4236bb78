"""Configurations in TOML."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import FileError

__all__ = ["path_of", "read_toml"]

_READERS = ("tomllib", "tomli", "pip._vendor.tomli")
"""Python has one from 3.11 on; before, pip brings the same along."""

_ESCAPES = "in double quotes a backslash begins an escape; write paths in single quotes, 'C:\\new', or as C:/new"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a configuration in TOML.

    Raises `FileError` if it cannot be read or is no TOML, or there is nothing to read TOML with.
    """
    reader = _reader(path)
    try:
        text = path.read_text("utf-8-sig")  # Windows' editors begin a text with a mark
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is no text in UTF-8 ({error}); expected a configuration in TOML") from None
    try:
        return dict(reader.loads(text))
    except ValueError as error:
        hint = f"; {_ESCAPES}" if "\\" in text else ""
        raise FileError(f"{path}: is no TOML: {error}{hint}") from None


def _reader(path: Path) -> ModuleType:
    for name in _READERS:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise FileError(f"{path}: reading TOML needs Python 3.11 or later, or tomli: pip install tomli")


def path_of(value: object, name: str, folder: Path) -> str:
    """The absolute path that a configuration in `folder` gives as `name`; empty for none.

    Raises `FileError` for what is no path, such as "C:\\new" in double quotes: C:, a new line, ew.
    """
    if not isinstance(value, str):
        raise FileError(f"{name} is {value!r}, expected the name of a file or a folder")
    if min(value, default=" ") < " ":
        raise FileError(f"{name} is {value!r}: {_ESCAPES}")
    return str(folder / os.path.expanduser(value)) if value else ""
