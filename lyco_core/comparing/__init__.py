"""How large adapters' changes are, and how two of them lie to each other: from their factors where that is exact."""

from .compare import Comparison, compare_files
from .strips import Strips, strips
from .weigh import Weighed, weigh_file

__all__ = ["Comparison", "Strips", "Weighed", "compare_files", "strips", "weigh_file"]
