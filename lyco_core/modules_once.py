"""The modules of a file, each counted once however often the file says it."""

from __future__ import annotations

from .adapters import Adapter, agreed, is_outline
from .errors import AdapterError

__all__ = ["UNSEEN", "ModulesOnce", "why_left_out"]


class ModulesOnce:
    """Adapters by module path, as they are found."""

    def __init__(self) -> None:
        self.adapters: dict[str, Adapter] = {}
        self.prefixes: dict[str, str] = {}
        self.idle: dict[str, str] = {}
        """Prefix of what is left out -> why: see `AdapterSet.idle`."""

    def add(self, path: str, adapter: Adapter, prefix: str) -> None:
        """Add a module, or find it to be the same as one that is there under another prefix.

        Raises:
            AdapterError: the two of a module contradict each other.
        """
        if path in self.adapters:
            first, other = self.adapters[path], self.prefixes[path]
            kept = agreed(first, adapter)
            if kept is None:
                raise AdapterError(
                    f"{prefix}: the same module is there twice, also as {other}, and the two differ; "
                    "remove one of them from the file"
                )
            names = (prefix, other) if kept is first else (other, prefix)
            self.idle[names[0]] = why_left_out(kept)
            adapter, prefix = kept, names[1]
        self.adapters[path], self.prefixes[path] = adapter, prefix


_WHY = "there under another name too, and counted once"
UNSEEN = f"{_WHY}; whether the two agree is seen when it is loaded"
"""Why a module of an outline counts for nothing: numbers may say otherwise."""


def why_left_out(kept: Adapter) -> str:
    """Why a module counts for nothing beside the one that is kept."""
    return UNSEEN if is_outline(kept) else _WHY
