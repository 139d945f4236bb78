"""LORA_MODEL: an adapter in ComfyUI's own training nodes, its tensors by the names that ComfyUI's loader reads.

Train LoRA makes it, Load LoRA Model and Save LoRA Weights take it (comfy_extras/nodes_train.py).
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

import comfy.lora_convert
import torch
from torch import Tensor

from ....lyco_core.adapter_reader import read_adapter_set
from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.architectures import named_as
from ....lyco_core.conversion import ConvertOptions, computes, convert_set, require_computed
from ....lyco_core.errors import FileError, LycoError, about_file
from ....lyco_core.finite import check_finite
from ....lyco_core.formats import FORMATS, emit, parse, sort_keys
from ....lyco_core.layouts import BIAS
from ..files import stamp

LORA_MODEL = "LORA_MODEL"
"""The type, as ComfyUI calls it."""

LORA = "lora"
"""The input of ours that takes one, and what reports and errors call it."""

LoraModel: TypeAlias = dict[str, Tensor]


def adapters_of(lora: object, name: str = LORA) -> AdapterSet:
    """The adapters of a LORA_MODEL, in the computer's memory, not identified.

    Args:
        name: what an error calls it.

    Raises:
        LycoError: it is none, a module of it is damaged (NaN or Inf too), or ComfyUI's arithmetic makes another change
            of one than is written down anywhere else.
    """
    with about_file(name):
        return require_computed(_read(lora)[1])


def adapters_to_load(lora: object) -> AdapterSet:
    """As `adapters_of`, but modules of which ComfyUI's arithmetic makes another change are left to its own adapters, as
    keys of none that is known here: it is what they were trained with.
    """
    with about_file(LORA):
        tensors, found = _read(lora)
        theirs = {found.prefixes[path] for path, adapter in found.adapters.items() if not computes(adapter)}
        left = {key: tensors[key] for prefix in theirs for key in found.keys[prefix].values()}
        ours = parse({key: tensor for key, tensor in tensors.items() if key not in left}, {})
    return dataclasses.replace(ours, unrecognised={**ours.unrecognised, **left})


def _read(lora: object) -> tuple[LoraModel, AdapterSet]:
    with torch.inference_mode(False):
        tensors = comfy.lora_convert.convert_lora({key: _own(tensor) for key, tensor in _checked(lora).items()})
        keys = sort_keys(tensors, tensors.__getitem__)
        found = parse(tensors, {}, None, keys)
        for key in keys.of_factors:
            check_finite(key, tensors[key])
    return tensors, found


def _checked(lora: object) -> LoraModel:
    if not isinstance(lora, dict) or not all(isinstance(tensor, Tensor) for tensor in lora.values()):
        kind = type(lora).__name__
        raise LycoError(f"is of the type {kind}, expected tensors by name; connect a node that makes a LORA_MODEL")
    return lora


def _own(tensor: Tensor) -> Tensor:
    """The tensor in the computer's memory, fit for gradients of others: what a node makes need not be."""
    tensor = tensor.detach().cpu()
    return tensor.clone() if tensor.is_inference() else tensor


class _Later(LoraModel):
    """A LORA_MODEL that is made when somebody uses it: a node does not know whether anybody does."""

    def __init__(self, make: Callable[[], LoraModel]) -> None:
        super().__init__()
        self._make = make

    @functools.cached_property
    def made(self) -> LoraModel:
        return self._make()


def _as_made(name: str) -> Callable[..., Any]:
    def ask(later: _Later, *inputs: object) -> Any:
        return getattr(later.made, name)(*inputs)

    return ask


for _special in ("contains", "getitem", "iter", "len", "or", "ror"):
    setattr(_Later, f"__{_special}__", _as_made(f"__{_special}__"))
for _name in ("copy", "get", "items", "keys", "values"):
    setattr(_Later, _name, _as_made(_name))


def no_lora(why: str) -> LoraModel:
    """In the place of a LORA_MODEL that cannot be: whoever uses it is told why. ComfyUI's ExecutionBlocker tells nobody
    over the API.
    """

    def refuse() -> NoReturn:
        raise LycoError(f"there is no LORA_MODEL: {why}")

    return _Later(refuse)


def lora_model_in(path: str, made: AdapterSet) -> LoraModel:
    """The LORA_MODEL of a new adapter file, read when somebody uses it: it may have gigabytes.

    Args:
        made: what was written there, identified; only its names are kept. Where the file has underscores, nothing else
            tells those of norms.
    """
    whole, outline = stamp(path), dataclasses.replace(made, adapters={}, alpha_tensors={})

    def read() -> LoraModel:
        with about_file(path), torch.inference_mode(False):
            if not os.path.isfile(path) or stamp(path) != whole:
                raise FileError("is gone, or not as it was made for this LORA_MODEL; run the node that made it again")
            return _for_stock(_named(read_adapter_set(path), outline))

    return _Later(read)


def _named(found: AdapterSet, outline: AdapterSet) -> AdapterSet:
    """The adapters of a file by the paths of those that it was made of."""
    paths = {(prefix, path.endswith(BIAS)): path for path, prefix in outline.prefixes.items()}
    names = {name: paths[prefix, name.endswith(BIAS)] for name, prefix in found.prefixes.items()}
    return dataclasses.replace(named_as(found, dataclasses.replace(outline, names=names)), format=FORMATS["bare"])


def lora_model_of(found: AdapterSet) -> LoraModel:
    """The LORA_MODEL of adapters that are identified; `no_lora` where they have none, by which nothing else is lost."""
    try:
        return _for_stock(found)
    except LycoError as error:
        return no_lora(str(error))


def _for_stock(found: AdapterSet) -> LoraModel:
    """Each tensor has memory of its own, as Save LoRA Weights wants it."""
    with torch.inference_mode(False):
        made = convert_set(found, ConvertOptions("comfyui"))
        tensors, _ = emit(require_computed(made.adapter_set))
        return {key: tensor.clone() for key, tensor in tensors.items()}
