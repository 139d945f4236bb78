"""The algebra: one algorithm a file, `base.py` holds the contract."""

from .base import Adapter, fits
from .loha import LoHa
from .lokr import LoKr
from .lora import LoRA

__all__ = ["ALGORITHMS", "Adapter", "LoHa", "LoKr", "LoRA", "fits"]

ALGORITHMS: dict[str, type[Adapter]] = {cls.algorithm: cls for cls in (LoRA, LoHa, LoKr)}
"""Every algorithm by its id."""
