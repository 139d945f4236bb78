"""Model families as data, and telling which one an adapter was trained for."""

from .detect import identify, recognise
from .registry import ARCHITECTURES
from .table import Architecture, Group, Target

__all__ = ["ARCHITECTURES", "Architecture", "Group", "Target", "identify", "recognise"]
