"""Adapters into a checkpoint file: planned from headers, then streamed, a band of rows at a time."""

from ..quantized.rounding import round_to
from .merge import merge_checkpoint
from .options import MergeOptions, Source

__all__ = ["MergeOptions", "Source", "merge_checkpoint", "round_to"]
