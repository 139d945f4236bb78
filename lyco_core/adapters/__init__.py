"""The algebra: one algorithm a file; `base.py`, `additive.py` and `on_base.py` hold the contract."""

from .additive import Additive
from .base import ANY, BAKED, Adapter, fits, shape_text
from .bora import BoRA
from .by_type import ByType
from .dora import DoRA, bare
from .full import Full
from .glora import GLoRA
from .ia3 import IA3
from .loha import LoHa, to_loha
from .lokr import LoKr
from .lora import LoRA, cut, lora_rank, to_lora
from .oft import BOFT, OFT
from .oftv2 import CAYLEY, TERMS, OFTv2, within
from .on_base import OnBase
from .same import agreed, alike_options, changes_nothing, is_outline, same_change
from .scaling import multiplied, times, with_alpha, with_scale
from .split_oft import SplitOFT
from .swapped import Swapped, with_halves_swapped

__all__ = [
    "ALGORITHMS",
    "ANY",
    "BAKED",
    "BOFT",
    "CAYLEY",
    "IA3",
    "LOW_RANK",
    "OFT",
    "TERMS",
    "Adapter",
    "Additive",
    "BoRA",
    "ByType",
    "DoRA",
    "Full",
    "GLoRA",
    "LoHa",
    "LoKr",
    "LoRA",
    "OFTv2",
    "OnBase",
    "SplitOFT",
    "Swapped",
    "agreed",
    "alike_options",
    "bare",
    "changes_nothing",
    "cut",
    "fits",
    "is_outline",
    "lora_rank",
    "multiplied",
    "same_change",
    "shape_text",
    "times",
    "to_loha",
    "to_lora",
    "with_alpha",
    "with_halves_swapped",
    "with_scale",
    "within",
]

LOW_RANK: dict[str, type[Additive]] = {cls.algorithm: cls for cls in (LoRA, LoHa, LoKr)}
"""LoRA, LoHa and LoKr by id: changes of low rank that do not depend on the weight. They are what is trained and
extracted, and what DoRA sits on."""

ALGORITHMS: dict[str, type[Adapter]] = {**LOW_RANK, **{cls.algorithm: cls for cls in (GLoRA, OFT, BOFT, OFTv2, Full)}}
"""Every algorithm by id whose adapters are made from named tensors and an alpha alone: not DoRA, BoRA and IA3."""
