"""Another layout, losslessly: names change, rows are cut or stacked, and nothing is rounded unasked."""

from .convert import convert_file, convert_set
from .options import Options
from .result import Conversion, Converted

__all__ = ["Conversion", "Converted", "Options", "convert_file", "convert_set"]
