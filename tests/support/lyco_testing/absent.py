"""A package that is installed, as where it is not."""

from __future__ import annotations

import sys

import pytest

__all__ = ["hide"]


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Have imports of a package and of its modules fail, also of those that another test has imported."""
    modules = [name for name in sys.modules if name.split(".")[0] == package]
    for name in (package, *modules):
        monkeypatch.setitem(sys.modules, name, None)
