"""Node schemas for every ComfyUI that the pack runs in."""

from __future__ import annotations

import inspect


def known(cls, *positional, **named):
    """`cls(*positional, **named)` without the named arguments that this ComfyUI does not know yet.

    Of those that the pack uses, 0.3.64 lacks `search_aliases` and `advanced`.
    """
    accepted = inspect.signature(cls).parameters
    return cls(*positional, **{name: value for name, value in named.items() if name in accepted})
