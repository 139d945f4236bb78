"""A function in the place of a module's `forward`, and the module's own again.

Not a forward hook: torch.compile does not guard those, so that a graph that was compiled before would go on without
the adapter. A `forward` of the instance is guarded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["replace_forward", "restore_forward"]

Forward = Callable[..., Any]


def replace_forward(module: nn.Module, forward: Forward) -> Forward | None:
    """Have the module compute `forward`; what its instance had before, for `restore_forward`."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    return before


def restore_forward(module: nn.Module, forward: Forward, before: Forward | None) -> bool:
    """Undo `replace_forward`; False if somebody has wrapped `forward` since and still calls it: it must add nothing."""
    if module.__dict__.get("forward") != forward:
        return False
    if before is None:
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = before
    return True
