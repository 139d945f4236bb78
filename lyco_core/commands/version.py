"""What `lyco --version` prints: a line for each thing that a report of a fault should say."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..installed import unserved
from ..version import __version__

__all__ = ["version_lines"]


def version_lines() -> list[str]:
    """The version, what it runs with, and where it lies; torch, which takes seconds to import, is not."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "is not installed"
    folder = Path(__file__).parents[2]
    fault = unserved(folder) if folder.parent.name == "custom_nodes" else None
    return [
        f"lyco {__version__}",
        f"torch {torch}",
        f"Python {platform.python_version()} on {platform.system()}",
        f"folder {folder}",
        *([fault] if fault else []),
    ]
