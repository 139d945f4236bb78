"""One module's tensors, by suffix, into its adapters: one for its weight, one for its bias."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..adapters import ALGORITHMS, BOFT, IA3, LOW_RANK, Adapter, DoRA, Full, rescaled, scaled
from ..errors import AdapterError
from ..layouts import BIAS
from .peft import PeftConfig
from .suffixes import ALPHA, BIAS_SUFFIXES, NUMBERS, ON_INPUT, TENSOR_SUFFIXES

__all__ = ["build", "is_adapter"]

_IA3 = {"weight", ON_INPUT}
"""Together these are LyCORIS's IA3; a `weight` alone is a model's."""


def is_adapter(suffixes: Mapping[str, object]) -> bool:
    """Whether a module's tensors are all known and make more than an alpha."""
    named = suffixes.keys() - {ALPHA}
    return named == _IA3 or (bool(named) and all(s in TENSOR_SUFFIXES or s in BIAS_SUFFIXES for s in named))


def build(prefix: str, tensors: Mapping[str, Tensor], config: PeftConfig | None, module: str) -> dict[str, Adapter]:
    """What changes the module's weight, under "", and its bias, under `.bias`.

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
            return {"": IA3(tensors["weight"], bool(_number(ON_INPUT, tensors[ON_INPUT])))}
        made: dict[str, Adapter] = {}
        scale = 1.0
        if fields := _fields(tensors):
            adapter = _low_rank_or_other(fields, alpha, config, module)
            scale = adapter.scale
            made[""] = _with_magnitude(adapter, tensors)
        for suffix in tensors.keys() & BIAS_SUFFIXES:
            if BIAS in made:
                raise AdapterError("its bias is changed under two names")
            bias = tensors[suffix]
            made[BIAS] = Full(scaled(bias, scale) if suffix.startswith("lora_B") and scale != 1 else bias)
        if "" not in made and (alone := sorted(tensors.keys() - BIAS_SUFFIXES - {ALPHA})):
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
    fields.pop("dora", None)
    return fields


def _low_rank_or_other(
    fields: dict[str, dict[str, Tensor]], alpha: float | None, config: PeftConfig | None, module: str
) -> Adapter:
    if len(fields) != 1:
        raise AdapterError(f"tensors of {' and '.join(sorted(fields)) or 'no algorithm'} in one module")
    algorithm, own = next(iter(fields.items()))
    if algorithm == "oft" and "blocks" in own and own["blocks"].dim() == BOFT.dimensions:
        algorithm = "boft"
    cls = ALGORITHMS[algorithm]
    adapter = cls(**{name: own.get(name) for name in cls.tensor_names}, alpha=alpha)
    if alpha is None and config is not None and algorithm in LOW_RANK:
        scale = config.scale(module, adapter.rank)
        if scale is None:
            return adapter
        if not 0 < abs(scale) <= torch.finfo(torch.float32).max:
            raise AdapterError(
                f"PEFT's configuration gives it a scale of {scale:g}, expected a finite one that is not 0"
            )
        return rescaled(adapter, scale)
    return adapter


def _with_magnitude(adapter: Adapter, tensors: Mapping[str, Tensor]) -> Adapter:
    """With DoRA's magnitude, if there is one: the shape of LyCORIS's tells its axis, others have the output's."""
    found = [s for s in tensors if TENSOR_SUFFIXES.get(s, ("", ""))[0] == "dora"]
    if not found:
        return adapter
    if len(found) > 1 or adapter.algorithm not in LOW_RANK:
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
