"""Adapters into a checkpoint file: planned from headers, then streamed, a band of rows at a time."""

from .checkpoint import merge_checkpoint
from .options import MergeOptions, Source
from .rounding import round_to

__all__ = ["MergeOptions", "Source", "merge_checkpoint", "round_to"]
