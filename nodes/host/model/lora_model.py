"""LORA_MODEL: an adapter in ComfyUI's own training nodes, its tensors by the names that ComfyUI's loader reads.

Train LoRA makes it, Load LoRA Model and Save LoRA Weights take it (comfy_extras/nodes_train.py).
"""

from __future__ import annotations

import dataclasses
from typing import NoReturn, TypeAlias

import comfy.lora_convert
import torch
from torch import Tensor

from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.conversion import ConvertOptions, computes, convert_set, require_computed
from ....lyco_core.errors import LycoError, about_file
from ....lyco_core.finite import check_finite
from ....lyco_core.formats import emit, parse, sort_keys

LORA_MODEL = "LORA_MODEL"
"""The type, as ComfyUI calls it."""

LORA = "lora"
"""The input of ours that takes one, and what reports and errors call it."""

LoraModel: TypeAlias = dict[str, Tensor]


def adapters_of(lora: object) -> AdapterSet:
    """The adapters of a LORA_MODEL, in the computer's memory, not identified.

    Raises:
        LycoError: it is none, a module of it is damaged (NaN or Inf too), or ComfyUI's arithmetic makes another change
            of one than is written down anywhere else.
    """
    with about_file(LORA):
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


class NoLora(LoraModel):
    """In the place of a LORA_MODEL that cannot be: whoever uses it is told why. A node does not know whether anybody
    does, and ComfyUI's ExecutionBlocker tells nobody over the API.
    """

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why

    def _refuse(self, *_: object) -> NoReturn:
        raise LycoError(f"there is no LORA_MODEL: {self.why}")

    __contains__ = __getitem__ = __iter__ = __len__ = get = items = keys = values = _refuse


def lora_model_of(found: AdapterSet) -> LoraModel:
    """The LORA_MODEL of adapters that are identified; a `NoLora` where they have none, by which nothing else is lost.

    Each tensor has memory of its own, as Save LoRA Weights wants it.
    """
    try:
        with torch.inference_mode(False):
            made = convert_set(found, ConvertOptions("comfyui"))
            tensors, _ = emit(require_computed(made.adapter_set))
            return {key: tensor.clone() for key, tensor in tensors.items()}
    except LycoError as error:
        return NoLora(str(error))
