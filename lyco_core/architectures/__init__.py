"""Model families as data, and telling which one an adapter was trained for."""

from .detect import identify, recognise
from .fused import FUSED
from .registry import ARCHITECTURES, index_families
from .renaming import named_as, part_named_as
from .table import Architecture, Group, Target
from .training import TrainedFamily

__all__ = [
    "ARCHITECTURES",
    "FUSED",
    "Architecture",
    "Group",
    "Target",
    "TrainedFamily",
    "identify",
    "index_families",
    "named_as",
    "part_named_as",
    "recognise",
]
