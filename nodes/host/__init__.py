"""ComfyUI as the nodes need it. Only this room, and the nodes' schemas, import ComfyUI."""

from .checkpoints import adapter_list, checkpoint_fingerprint, checkpoint_names, merge_files, merge_options
from .converting import conversion, convert
from .files import adapter_names, fingerprint
from .loading import inspect, load_onto
from .merging import merge_onto
from .runtime import MODES
from .schema import known, selection, selection_inputs, strength_input

__all__ = [
    "MODES",
    "adapter_list",
    "adapter_names",
    "checkpoint_fingerprint",
    "checkpoint_names",
    "conversion",
    "convert",
    "fingerprint",
    "inspect",
    "known",
    "load_onto",
    "merge_files",
    "merge_onto",
    "merge_options",
    "selection",
    "selection_inputs",
    "strength_input",
]
