"""Several adapter files as one: exactly where they add up, and by the methods for merging models."""

from .average import Average
from .combine import combine_files
from .options import METHODS, Addend, CombineOptions
from .result import Combination

__all__ = ["METHODS", "Addend", "Average", "Combination", "CombineOptions", "combine_files"]
