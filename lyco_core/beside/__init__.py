"""Adapters beside a weight: what a linear module gives once its weight is changed, while the weight stays as it is.

Quantized weights keep their numbers, and nothing is rounded to their precision. Every algorithm is linear in the
weight, W' = W + strength * ΔW(W), so each is one of five effects on the module's function x -> W x: something is added
to its output (LoRA, LoHa, LoKr), its output is multiplied (DoRA by outputs, IA3) or turned (OFT, BOFT), its input is
changed (DoRA by inputs, IA3 on inputs, GLoRA), or both (OFTv2, BoRA). Effects follow each other as patches do. A
convolution is linear in patches of its input.
"""

from .effects import Effect, computed
from .forward import replace_forward, restore_forward
from .seat import Change, Seat, sits_on
from .settle import Part, settled

__all__ = [
    "Change",
    "Effect",
    "Part",
    "Seat",
    "computed",
    "replace_forward",
    "restore_forward",
    "settled",
    "sits_on",
]
