"""How large adapters' changes are, and how two of them lie to each other: from their factors where that is exact."""

from .compare import Comparison, compare_files
from .of_model import ModelNorms
from .strips import Norms, Shares, Strips, drawn, drawn_shares, measured, strips
from .weigh import Weighed, weigh_file

__all__ = [
    "Comparison",
    "ModelNorms",
    "Norms",
    "Shares",
    "Strips",
    "Weighed",
    "compare_files",
    "drawn",
    "drawn_shares",
    "measured",
    "strips",
    "weigh_file",
]
