"""Another layout, losslessly: names change, rows are cut or stacked, and nothing is rounded unasked."""

from .comfyui import computes, reads_all, require_computed
from .convert import RECORD, convert_adapters, convert_file, convert_set
from .options import ConvertOptions
from .result import Conversion, Converted

__all__ = [
    "RECORD",
    "Conversion",
    "ConvertOptions",
    "Converted",
    "computes",
    "convert_adapters",
    "convert_file",
    "convert_set",
    "reads_all",
    "require_computed",
]
