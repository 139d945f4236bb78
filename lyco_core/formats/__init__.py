"""Key grammars: from the tensors of a file to an `AdapterSet`.

A key is a module's spelling (`grammar.py`) and a tensor's suffix (`suffixes.py`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from ..adapter_set import AdapterSet
from ..adapters import ALGORITHMS, Adapter, LoRA
from ..errors import AdapterError
from .grammar import FORMATS, UNKNOWN, Format, format_of
from .peft import metadata_alpha
from .suffixes import ALPHA, TENSOR_SUFFIXES, split_key

__all__ = ["FORMATS", "TENSOR_SUFFIXES", "UNKNOWN", "Format", "format_of", "parse", "split_key"]


def parse(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> AdapterSet:
    """Group the tensors of a file into adapters.

    A module with any tensor that is not known here (DoRA's magnitude, say) is left out whole,
    its tensors in `unrecognised`: half an adapter is a wrong one. A module that no format
    spells so keeps the whole beginning of its keys as its path.

    Args:
        tensors: key -> tensor; on the meta device all but the alphas, if only shapes matter.
        metadata: the file's own.

    Raises:
        AdapterError: a module's tensors do not make an adapter.
    """
    grouped: dict[str, dict[str, str]] = {}
    for key in tensors:
        prefix, suffix = split_key(key)
        grouped.setdefault(prefix, {})[suffix] = key

    adapters: dict[str, Adapter] = {}
    prefixes: dict[str, str] = {}
    unrecognised: dict[str, Tensor] = {}
    spelled: Counter[str] = Counter()
    for prefix, keys in grouped.items():
        if not _is_adapter(keys):
            unrecognised.update((key, tensors[key]) for key in keys.values())
            continue
        found = format_of(prefix)
        module = prefix.removeprefix(found.module_prefix) if found else prefix
        adapter = _build(prefix, {suffix: tensors[key] for suffix, key in keys.items()})
        if found is not None and found.peft and adapter.alpha is None and isinstance(adapter, LoRA):
            adapter = dataclasses.replace(adapter, alpha=metadata_alpha(metadata, module, adapter.rank))
        if module in adapters:
            raise AdapterError(f"{prefix}: the same module is there twice, also as {prefixes[module]}")
        adapters[module] = adapter
        prefixes[module] = prefix
        spelled[found.id if found else UNKNOWN] += 1
    format_id = spelled.most_common(1)[0][0] if spelled else UNKNOWN
    alphas = {m: tensors[grouped[p][ALPHA]] for m, p in prefixes.items() if ALPHA in grouped[p]}
    return AdapterSet(adapters, prefixes, format_id, metadata, alphas, unrecognised)


def _is_adapter(keys: Mapping[str, str]) -> bool:
    return any(s != ALPHA for s in keys) and all(s == ALPHA or s in TENSOR_SUFFIXES for s in keys)


def _build(prefix: str, tensors: Mapping[str, Tensor]) -> Adapter:
    """The adapter that one module's tensors, by suffix, make."""
    fields: dict[str, Tensor] = {}
    algorithms: set[str] = set()
    for suffix, tensor in tensors.items():
        if suffix != ALPHA:
            algorithm, field = TENSOR_SUFFIXES[suffix]
            algorithms.add(algorithm)
            fields[field] = tensor
            if not tensor.is_floating_point():
                raise AdapterError(
                    f"{prefix}.{suffix}: its dtype is {str(tensor.dtype).removeprefix('torch.')}, expected floating "
                    "point; a quantized adapter must be dequantized first"
                )
    try:
        if len(algorithms) != 1:
            raise AdapterError(f"tensors of {' and '.join(sorted(algorithms))} in one module")
        if len(fields) < sum(suffix != ALPHA for suffix in tensors):
            raise AdapterError(f"one tensor is there under two names: {', '.join(tensors)}")
        cls = ALGORITHMS[algorithms.pop()]
        return cls(**{name: fields.get(name) for name in cls.tensor_names}, alpha=_alpha(tensors.get(ALPHA)))
    except AdapterError as error:
        raise AdapterError(f"{prefix}: {error}") from None


def _alpha(tensor: Tensor | None) -> float | None:
    if tensor is None:
        return None
    if tensor.numel() != 1:
        raise AdapterError(f"alpha has shape {list(tensor.shape)}, expected one number")
    return float(tensor.item())
