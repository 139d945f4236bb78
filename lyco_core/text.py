"""How a person reads what the library counts."""

from __future__ import annotations

__all__ = ["size_text"]


def size_text(size: int) -> str:
    """A number of bytes as a person reads it: `2.84 GB`, `4.56 MB`, `9.4 kB`."""
    if size >= 1e9:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
