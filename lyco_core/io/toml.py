"""Configurations in TOML."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ..errors import FileError

__all__ = ["read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """A configuration.

    Raises `FileError` if it cannot be read, is no TOML, or Python is older than 3.11, which reads none.
    """
    try:
        tomllib = importlib.import_module("tomllib")
    except ModuleNotFoundError:
        raise FileError(f"{path}: reading TOML needs Python 3.11 or later") from None
    try:
        return dict(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise FileError(f"{path}: is no TOML: {error}") from None
