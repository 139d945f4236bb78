"""Several adapter files as one: exactly where they add up, and by the methods for merging models."""

from .average import Average
from .base import Base
from .combine import combine_files, require_one_width
from .options import METHODS, Addend, CombineOptions
from .result import Combination
from .sources import Opened, open_all

__all__ = [
    "METHODS",
    "Addend",
    "Average",
    "Base",
    "Combination",
    "CombineOptions",
    "Opened",
    "combine_files",
    "open_all",
    "require_one_width",
]
