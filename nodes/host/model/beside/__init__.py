"""Adapters beside the weights of a ComfyUI model while it samples: where a weight is quantized, or on request."""

from .injection import put_beside
from .modes import MODES, Division, divide

__all__ = ["MODES", "Division", "divide", "put_beside"]
