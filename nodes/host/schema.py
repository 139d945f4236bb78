"""Node schemas for every ComfyUI that the pack runs in."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

_KNOWN = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**arguments) -> io.Schema:
    """`io.Schema` without the arguments that this ComfyUI does not know yet."""
    return io.Schema(**{name: value for name, value in arguments.items() if name in _KNOWN})
