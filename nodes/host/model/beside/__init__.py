"""Adapters beside the weights of a ComfyUI model while it samples: where a weight is quantized, or on request."""

from .guard import checked_call
from .injection import beside_while, layers_of, put_beside, require_constant
from .layers import Layer
from .modes import MODES, Division, divide

__all__ = [
    "MODES",
    "Division",
    "Layer",
    "beside_while",
    "checked_call",
    "divide",
    "layers_of",
    "put_beside",
    "require_constant",
]
