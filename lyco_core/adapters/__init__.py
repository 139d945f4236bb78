"""The algebra: one algorithm a file; `base.py`, `additive.py` and `on_base.py` hold the contract."""

from .additive import Additive
from .base import ANY, Adapter, fits, shape_text
from .by_type import ByType
from .dora import DoRA, bare
from .full import Full
from .glora import GLoRA
from .ia3 import IA3
from .loha import LoHa, to_loha
from .lokr import LoKr
from .lora import LoRA, cut, lora_rank, to_lora
from .oft import BOFT, OFT
from .on_base import OnBase
from .same import agreed, changes_nothing, is_outline, same_change
from .scaling import rescaled, scaled, with_alpha

__all__ = [
    "ALGORITHMS",
    "ANY",
    "BOFT",
    "IA3",
    "LOW_RANK",
    "OFT",
    "Adapter",
    "Additive",
    "ByType",
    "DoRA",
    "Full",
    "GLoRA",
    "LoHa",
    "LoKr",
    "LoRA",
    "OnBase",
    "agreed",
    "bare",
    "changes_nothing",
    "cut",
    "fits",
    "is_outline",
    "lora_rank",
    "rescaled",
    "same_change",
    "scaled",
    "shape_text",
    "to_loha",
    "to_lora",
    "with_alpha",
]

LOW_RANK: dict[str, type[Additive]] = {cls.algorithm: cls for cls in (LoRA, LoHa, LoKr)}
"""By id, those that a low rank makes small: what is trained, and what DoRA sits on."""

ALGORITHMS: dict[str, type[Adapter]] = {**LOW_RANK, **{cls.algorithm: cls for cls in (GLoRA, OFT, BOFT, Full)}}
"""By id, every algorithm that is made from named tensors alone."""
