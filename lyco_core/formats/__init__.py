"""Key grammars: from the tensors of a file to an `AdapterSet`.

A key is a module's spelling (`grammar.py`) and a tensor's suffix (`suffixes.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from ..adapter_set import AdapterSet
from ..adapters import Adapter
from ..errors import AdapterError
from .grammar import FORMATS, UNKNOWN, Format, format_of
from .modules import build, is_adapter
from .peft import PeftConfig, config_in_metadata
from .suffixes import ALPHA, TENSOR_SUFFIXES, split_key

__all__ = ["FORMATS", "TENSOR_SUFFIXES", "UNKNOWN", "Format", "format_of", "parse", "split_key"]


def parse(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], config: PeftConfig | None = None) -> AdapterSet:
    """Group the tensors of a file into adapters.

    A module with any tensor that is not known here is left out whole, its tensors in
    `unrecognised`: half an adapter is a wrong one. A module that no format spells so keeps the
    whole beginning of its keys as its path.

    Args:
        tensors: key -> tensor; on the meta device all but `suffixes.NUMBERS`, if only shapes matter.
        metadata: the file's own.
        config: PEFT's, from a file beside it; what the metadata has comes first.

    Raises:
        AdapterError: a module's tensors do not make an adapter.
        FormatError: the metadata's configuration cannot be read.
    """
    grouped: dict[str, dict[str, str]] = {}
    for key in tensors:
        prefix, suffix = split_key(key)
        grouped.setdefault(prefix, {})[suffix] = key
    config = config_in_metadata(metadata) or config

    adapters: dict[str, Adapter] = {}
    prefixes: dict[str, str] = {}
    alphas: dict[str, Tensor] = {}
    unrecognised: dict[str, Tensor] = {}
    spelled: Counter[str] = Counter()
    for prefix, keys in grouped.items():
        if not is_adapter(keys):
            unrecognised.update((key, tensors[key]) for key in keys.values())
            continue
        found = format_of(prefix)
        module = found.module(prefix) if found else prefix
        asked = config if found is not None and found.peft else None
        own = {suffix: tensors[key] for suffix, key in keys.items()}
        for parameter, adapter in build(prefix, own, asked, module).items():
            path = module + parameter
            if path in adapters:
                raise AdapterError(f"{prefix}: the same module is there twice, also as {prefixes[path]}")
            adapters[path], prefixes[path] = adapter, prefix
        if ALPHA in keys:
            alphas[module] = tensors[keys[ALPHA]]
        spelled[found.id if found else UNKNOWN] += 1
    format_id = spelled.most_common(1)[0][0] if spelled else UNKNOWN
    return AdapterSet(adapters, prefixes, format_id, metadata, alphas, unrecognised)
