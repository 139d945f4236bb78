"""Text for people: names that strangers wrote, lists of them, and sizes, each in a form that fits a line."""

from __future__ import annotations

__all__ = ["clipped", "counted", "one_line", "shorten", "size_text"]


def one_line(text: str) -> str:
    """`text` with control characters escaped: names in a file come from strangers."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def clipped(text: str, longest: int = 2000) -> str:
    """`text` without its middle, if it is longer than that: names in a file can have megabytes."""
    return text if len(text) <= longest else f"{text[: longest // 2]} … {text[-longest // 2 :]}"


def shorten(names: list[str], limit: int = 3) -> str:
    """The first few of `names`, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 weight`, `2 weights`; `many` where it is not `one` with an s: `module is`, `modules are`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def size_text(size: int) -> str:
    """A number of bytes as a person reads it: `2.84 GB`, `4.56 MB`, `9.4 kB`."""
    if size >= 1e9:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
