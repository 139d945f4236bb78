"""One module's tensors, by suffix, into its adapters: one for its weight, one for its bias."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from ..adapters import IA3, Adapter, Full, multiplied
from ..errors import AdapterError
from ..layouts import BIAS
from .suffixes import (
    ALPHA,
    BIAS_SUFFIXES,
    NOTES,
    NUMBERS,
    ON_INPUT,
    ON_OTHERS,
    OWN_BIAS_SUFFIXES,
    PARAMETER_SUFFIXES,
    TENSOR_SUFFIXES,
)
from .weights import Context, number, weight_adapter

__all__ = ["WEIGHT", "build", "has_factors", "is_adapter", "is_companion"]

WEIGHT = ""
"""Stands for the module's weight where `layouts.BIAS` stands for its bias."""

_IA3 = {"weight", ON_INPUT}
"""Together these are LyCORIS's IA3; a `weight` alone is a model's."""

_OTHER_PARAMETERS = BIAS_SUFFIXES | PARAMETER_SUFFIXES.keys()
"""Suffixes of what changes something else than the module's weight."""


def is_adapter(suffixes: Mapping[str, object]) -> bool:
    """Whether a module's tensors are all known and make more than an alpha."""
    named = suffixes.keys() - {ALPHA, *NOTES}
    return named == _IA3 or (bool(named) and all(s in TENSOR_SUFFIXES or s in _OTHER_PARAMETERS for s in named))


def has_factors(suffixes: Iterable[str]) -> bool:
    """Whether one is a tensor of the weight's change itself, which an alpha and magnitudes only scale."""
    return any(s in TENSOR_SUFFIXES and s not in ON_OTHERS for s in suffixes)


def is_companion(suffixes: Iterable[str]) -> bool:
    """Whether all belong to factors that are elsewhere."""
    return all(s == ALPHA or s in ON_OTHERS or s in NOTES for s in suffixes)


def build(prefix: str, tensors: Mapping[str, Tensor], context: Context) -> dict[str, Adapter]:
    """What changes the module's weight, under `WEIGHT`, its bias, under `.bias`, and other parameters of it.

    Nothing where its scale is 0.

    Args:
        prefix: what the module's keys begin with, for messages.
        tensors: suffix -> tensor.

    Raises:
        AdapterError: they do not make an adapter.
    """
    for suffix, tensor in tensors.items():
        if suffix not in NUMBERS and not tensor.is_floating_point():
            raise AdapterError(
                f"{prefix}.{suffix}: its dtype is {str(tensor.dtype).removeprefix('torch.')}, expected floating "
                "point; a quantized adapter must be dequantized first"
            )
    try:
        if tensors.keys() - {ALPHA} == _IA3:
            return {WEIGHT: IA3(tensors["weight"], bool(number(ON_INPUT, tensors)))}
        made: dict[str, Adapter] = {}
        factors, scale = has_factors(tensors), 1.0
        if factors:
            adapter = weight_adapter(tensors, context)
            scale = 0.0 if adapter is None else adapter.scale
            if adapter is not None:
                made[WEIGHT] = adapter
        for suffix in tensors.keys() & BIAS_SUFFIXES:
            if BIAS in made:
                raise AdapterError("its bias is changed under two names")
            bias = tensors[suffix]
            if suffix in OWN_BIAS_SUFFIXES:
                made[BIAS] = Full(bias)
            elif scale:
                made[BIAS] = Full(multiplied(bias, scale) if scale != 1 else bias)
        made |= {parameter: Full(tensors[s]) for s, parameter in PARAMETER_SUFFIXES.items() if s in tensors}
        if not factors and (alone := sorted(tensors.keys() - _OTHER_PARAMETERS - {ALPHA})):
            raise AdapterError(f"{' and '.join(alone)} without the factors that it belongs to; the file is incomplete")
        return made
    except AdapterError as error:
        raise AdapterError(f"{prefix}: {error}") from None
