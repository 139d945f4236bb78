"""ComfyUI as the nodes need it. Only this room, and the nodes' schemas, import ComfyUI."""

from .converting import conversion, convert
from .files import adapter_names, fingerprint
from .loading import inspect, load_onto
from .schema import known

__all__ = ["adapter_names", "conversion", "convert", "fingerprint", "inspect", "known", "load_onto"]
