"""How large adapters' changes are, and how two of them lie to each other: from their factors where that is exact."""

from .compare import Comparison, compare_files
from .weigh import Weighed, weigh_file

__all__ = ["Comparison", "Weighed", "compare_files", "weigh_file"]
