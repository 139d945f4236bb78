"""From the tensors of a file to an `AdapterSet`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from ..adapter_set import AdapterSet
from ..adapters import Adapter
from ..layouts import parameter_of
from ..modules_once import ModulesOnce
from .dialects import dialect_of
from .grammar import Format, format_of
from .keys import Keys, sort_keys
from .modules import WEIGHT, build, has_factors
from .peft import PeftConfig, config_in_metadata
from .suffixes import ALPHA
from .weights import Context

__all__ = ["ModuleParser", "parse"]


class ModuleParser:
    """Makes the adapters of one module after the other, by what a file says of all of them.

    Args:
        metadata, config: see `parse`.

    Raises:
        FormatError: the metadata's configuration cannot be read.
    """

    def __init__(self, metadata: Mapping[str, str], config: PeftConfig | None = None) -> None:
        self._config = config_in_metadata(metadata) or config
        self._dialect = dialect_of(metadata)

    def __call__(self, prefix: str, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Adapter]]:
        """What the file calls a module, and what changes its weight and other parameters: see `build`.

        Args:
            prefix: what the module's keys begin with.
            tensors: suffix -> tensor.

        Raises:
            AdapterError: they do not make an adapter.
        """
        found = format_of(prefix)
        module = found.module(prefix) if found else prefix
        peft, dotted = found is not None and found.peft, found is not None and found.id == "comfyui"
        context = Context(module, self._dialect, self._config if peft else None, dotted=dotted, peft=peft)
        return module, build(prefix, tensors, context)


def parse(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    config: PeftConfig | None = None,
    sorted_keys: Keys | None = None,
) -> AdapterSet:
    """Group the tensors of a file into adapters.

    A module with any tensor that is not known here is left out whole, its tensors in
    `unrecognised`: half an adapter is a wrong one. A module that no format spells so keeps the
    whole beginning of its keys as its path.

    Args:
        tensors: key -> tensor; on the meta device all but `suffixes.NUMBERS`, if only shapes matter.
        metadata: the file's own.
        config: PEFT's, from a file beside it; what the metadata has comes first.
        sorted_keys: those of `tensors`, where they are sorted already.

    Raises:
        AdapterError: a module's tensors do not make an adapter.
        FormatError: the metadata's configuration cannot be read.
    """
    sorted_keys = sorted_keys or sort_keys(tensors, tensors.__getitem__)
    of_module = ModuleParser(metadata, config)
    modules = ModulesOnce()
    alphas: dict[str, Tensor] = {}
    spelled: Counter[Format | None] = Counter()
    for prefix, keys in sorted_keys.modules.items():
        own = {suffix: tensors[key] for suffix, key in keys.items()}
        module, built = of_module(prefix, own)
        if WEIGHT not in built and has_factors(keys):
            modules.idle[prefix] = "off, by an alpha of 0"
        for parameter, adapter in built.items():
            modules.add(module + parameter, adapter, prefix)
        if ALPHA in keys:
            alphas[prefix] = own[ALPHA]
        spelled[format_of(prefix)] += 1
    return AdapterSet(
        modules.adapters,
        modules.prefixes,
        spelled.most_common(1)[0][0] if spelled else None,
        metadata,
        {parameter_of(path)[0]: alphas[prefix] for path, prefix in modules.prefixes.items() if prefix in alphas},
        {key: tensors[key] for key in sorted_keys.unrecognised},
        sorted_keys.foreign,
        modules.idle,
        keys={prefix: sorted_keys.modules[prefix] for prefix in modules.prefixes.values()},
    )
