"""Another layout, losslessly: names change, rows are cut or stacked, and nothing is rounded unasked."""

from .convert import convert_file, convert_set
from .options import ConvertOptions
from .result import Conversion, Converted

__all__ = ["Conversion", "ConvertOptions", "Converted", "convert_file", "convert_set"]
