"""Links, where the system makes them."""

import os
from pathlib import Path

import pytest

__all__ = ["symlink"]


def symlink(target: Path, link: Path) -> None:
    """Make `link` lead to `target`; skip the test where a person may not (Windows), or nothing does (wine)."""
    try:
        link.symlink_to(target)
    except OSError as error:
        pytest.skip(f"no links can be made here: {error}")
    if not (link.exists() and os.path.samefile(link, target)):
        pytest.skip("this system's links lead nowhere")
