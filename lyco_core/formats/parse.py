"""From the tensors of a file to an `AdapterSet`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..adapter_set import AdapterSet
from ..layouts import parameter_of
from ..modules_once import ModulesOnce
from .foreign import foreign
from .grammar import Format, format_of, underscored
from .modules import WEIGHT, build, has_factors, is_adapter, is_companion
from .peft import PeftConfig, config_in_metadata
from .suffixes import ALPHA, split_key

__all__ = ["parse"]


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
    left_out = {key: what for key, tensor in tensors.items() if (what := foreign(key, tensor))}
    config = config_in_metadata(metadata) or config

    modules = ModulesOnce()
    alphas: dict[str, Tensor] = {}
    unrecognised: dict[str, Tensor] = {}
    spelled: Counter[Format | None] = Counter()
    grouped = _grouped(key for key in tensors if key not in left_out)
    for prefix, keys in grouped.items():
        if not is_adapter(keys):
            unrecognised.update((key, tensors[key]) for key in keys.values())
            continue
        found = format_of(prefix)
        module = found.module(prefix) if found else prefix
        asked = config if found is not None and found.peft else None
        own = {suffix: tensors[key] for suffix, key in keys.items()}
        built = build(prefix, own, asked, module)
        if WEIGHT not in built and has_factors(keys):
            modules.idle[prefix] = "off, by an alpha of 0"
        for parameter, adapter in built.items():
            modules.add(module + parameter, adapter, prefix)
        if ALPHA in keys:
            alphas[prefix] = own[ALPHA]
        spelled[found] += 1
    return AdapterSet(
        modules.adapters,
        modules.prefixes,
        spelled.most_common(1)[0][0] if spelled else None,
        metadata,
        {parameter_of(path)[0]: alphas[prefix] for path, prefix in modules.prefixes.items() if prefix in alphas},
        unrecognised,
        left_out,
        modules.idle,
        keys={prefix: grouped[prefix] for prefix in modules.prefixes.values()},
    )


def _grouped(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """What a module's keys begin with -> suffix -> key.

    An alpha or a magnitude joins the factors of its module that are spelled with dots where it has
    underscores, or the other way round.
    """
    grouped: dict[str, dict[str, str]] = {}
    spellings: dict[str, str] = {}
    for key in keys:
        prefix, suffix = split_key(key)
        grouped.setdefault(prefix, {})[suffix] = key
        if has_factors([suffix]):
            spellings.setdefault(underscored(prefix), prefix)
    for prefix in [prefix for prefix, found in grouped.items() if is_companion(found)]:
        whole = grouped.get(spellings.get(underscored(prefix), prefix), {})
        if whole is not grouped[prefix] and whole.keys().isdisjoint(grouped[prefix]):
            whole |= grouped.pop(prefix)
    return grouped
