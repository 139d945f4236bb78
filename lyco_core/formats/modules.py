"""One module's tensors, by suffix, into its adapters: one for its weight, one for its bias."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..adapters import ALGORITHMS, BOFT, IA3, LOW_RANK, Adapter, DoRA, Full, multiplied, with_scale
from ..errors import AdapterError
from ..layouts import BIAS
from .peft import PeftConfig
from .suffixes import (
    ALPHA,
    BIAS_SUFFIXES,
    DORA,
    MAGNITUDES,
    NUMBERS,
    ON_INPUT,
    OWN_BIAS_SUFFIXES,
    PARAMETER_SUFFIXES,
    TENSOR_SUFFIXES,
)

__all__ = ["WEIGHT", "build", "has_factors", "is_adapter", "is_companion"]

WEIGHT = ""
"""Stands for the module's weight where `layouts.BIAS` stands for its bias."""

_IA3 = {"weight", ON_INPUT}
"""Together these are LyCORIS's IA3; a `weight` alone is a model's."""

_OTHER_PARAMETERS = BIAS_SUFFIXES | PARAMETER_SUFFIXES.keys()
"""Suffixes of what changes something else than the module's weight."""

if _unmade := {algorithm for algorithm, _ in TENSOR_SUFFIXES.values()} - {*ALGORITHMS, DORA}:
    raise ValueError(f"formats/suffixes.py has tensors of {', '.join(_unmade)}, which adapters.ALGORITHMS lacks")


def is_adapter(suffixes: Mapping[str, object]) -> bool:
    """Whether a module's tensors are all known and make more than an alpha."""
    named = suffixes.keys() - {ALPHA}
    return named == _IA3 or (bool(named) and all(s in TENSOR_SUFFIXES or s in _OTHER_PARAMETERS for s in named))


def has_factors(suffixes: Iterable[str]) -> bool:
    """Whether one is a tensor of the weight's change itself, which an alpha and magnitudes only scale."""
    return any(s in TENSOR_SUFFIXES and s not in MAGNITUDES for s in suffixes)


def is_companion(suffixes: Iterable[str]) -> bool:
    """Whether all belong to factors that are elsewhere."""
    return all(s == ALPHA or s in MAGNITUDES for s in suffixes)


def build(prefix: str, tensors: Mapping[str, Tensor], config: PeftConfig | None, module: str) -> dict[str, Adapter]:
    """What changes the module's weight, under `WEIGHT`, its bias, under `.bias`, and other parameters of it.

    Nothing where its scale is 0.

    Args:
        prefix: what the module's keys begin with, for messages.
        tensors: suffix -> tensor.
        config: PEFT's, where alphas are not among the tensors.
        module: its name, which `config` may know.

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
        alpha = _number(ALPHA, tensors.get(ALPHA))
        if tensors.keys() - {ALPHA} == _IA3:
            return {WEIGHT: IA3(tensors["weight"], bool(_number(ON_INPUT, tensors[ON_INPUT])))}
        made: dict[str, Adapter] = {}
        fields, scale = _fields(tensors), 1.0
        if fields:
            adapter = _weight_adapter(fields, alpha, config, module)
            scale = 0.0 if adapter is None else adapter.scale
            if adapter is not None:
                made[WEIGHT] = _with_magnitude(adapter, tensors)
            elif any(s in tensors for s in MAGNITUDES):
                raise AdapterError("its scale is 0 beside a DoRA magnitude, which changes the weight by itself")
        for suffix in tensors.keys() & BIAS_SUFFIXES:
            if BIAS in made:
                raise AdapterError("its bias is changed under two names")
            bias = tensors[suffix]
            if suffix in OWN_BIAS_SUFFIXES:
                made[BIAS] = Full(bias)
            elif scale:
                made[BIAS] = Full(multiplied(bias, scale) if scale != 1 else bias)
        made |= {parameter: Full(tensors[s]) for s, parameter in PARAMETER_SUFFIXES.items() if s in tensors}
        if not fields and (alone := sorted(tensors.keys() - _OTHER_PARAMETERS - {ALPHA})):
            raise AdapterError(f"{' and '.join(alone)} without the factors that it belongs to; the file is incomplete")
        return made
    except AdapterError as error:
        raise AdapterError(f"{prefix}: {error}") from None


def _fields(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Algorithm id -> field -> tensor, DoRA's apart."""
    fields: dict[str, dict[str, Tensor]] = {}
    for suffix, tensor in tensors.items():
        if suffix not in TENSOR_SUFFIXES:
            continue
        algorithm, field = TENSOR_SUFFIXES[suffix]
        of_one = fields.setdefault(algorithm, {})
        if field in of_one:
            raise AdapterError(f"one tensor is there under two names: {', '.join(tensors)}")
        of_one[field] = tensor
    fields.pop(DORA, None)
    return fields


def _weight_adapter(
    fields: dict[str, dict[str, Tensor]], alpha: float | None, config: PeftConfig | None, module: str
) -> Adapter | None:
    """The adapter of the module's weight; None where an alpha or a scale of 0 turns it off."""
    if len(fields) != 1:
        raise AdapterError(f"tensors of {' and '.join(sorted(fields)) or 'no algorithm'} in one module")
    algorithm, own = next(iter(fields.items()))
    if algorithm == "oft" and "blocks" in own and own["blocks"].dim() == BOFT.dimensions:
        algorithm = "boft"
    cls = ALGORITHMS[algorithm]
    adapter = cls(**{name: own.get(name) for name in cls.tensor_names}, alpha=alpha or None)
    if alpha == 0 and adapter.rank is not None:
        return None
    if alpha is None and config is not None and algorithm in LOW_RANK:
        scale = config.scale(module, adapter.rank)
        if scale is None:
            return adapter
        if not abs(scale) <= torch.finfo(torch.float32).max:
            raise AdapterError(f"PEFT's configuration gives it a scale of {scale:g}, expected a finite one")
        return with_scale(adapter, scale) if scale else None
    return adapter


def _with_magnitude(adapter: Adapter, tensors: Mapping[str, Tensor]) -> Adapter:
    """The adapter with DoRA's magnitude, if there is one: LyCORIS's shape says along which axis it is, others'
    are along the output."""
    found = [s for s in tensors if s in MAGNITUDES]
    if not found:
        return adapter
    if len(found) > 1 or not isinstance(adapter, tuple(LOW_RANK.values())):
        raise AdapterError(
            f"{' and '.join(found)} beside a {adapter.title}; a DoRA has one magnitude on a LoRA, LoHa or LoKr"
        )
    return DoRA.of(adapter, tensors[found[0]], on_output=None if found[0] == "dora_scale" else True)


def _number(name: str, tensor: Tensor | None) -> float | None:
    if tensor is None:
        return None
    if tensor.numel() != 1:
        raise AdapterError(f"{name} has shape {list(tensor.shape)}, expected one number")
    return float(tensor.item())
