"""LORA_MODEL: an adapter in ComfyUI's own training nodes, its tensors by the names that ComfyUI's loader reads.

Train LoRA makes it, Load LoRA Model and Save LoRA Weights take it (comfy_extras/nodes_train.py).
"""

from __future__ import annotations

from typing import TypeAlias

import comfy.lora_convert
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ....lyco_core.adapter_reader import check_finite
from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.conversion import ConvertOptions, convert_set, require_computed
from ....lyco_core.errors import LycoError, about_file
from ....lyco_core.formats import emit, parse, sort_keys

LORA_MODEL = "LORA_MODEL"
"""The type, as ComfyUI calls it."""

LORA = "lora"
"""The input of ours that takes one, and what reports and errors call it."""

LoraModel: TypeAlias = dict[str, Tensor]


def adapters_of(lora: object) -> AdapterSet:
    """The adapters of a LORA_MODEL, in the computer's memory, not identified.

    Raises:
        LycoError: it is none, or a module of it is damaged: NaN or Inf too.
    """
    with about_file(LORA), torch.inference_mode(False):
        tensors = comfy.lora_convert.convert_lora({key: _own(tensor) for key, tensor in _checked(lora).items()})
        keys = sort_keys(tensors, tensors.__getitem__)
        found = parse(tensors, {}, None, keys)
        for key in keys.of_factors:
            check_finite(key, tensors[key])
    return found


def _checked(lora: object) -> LoraModel:
    if not isinstance(lora, dict) or not all(isinstance(tensor, Tensor) for tensor in lora.values()):
        kind = type(lora).__name__
        raise LycoError(f"is of the type {kind}, expected tensors by name; connect a node that makes a LORA_MODEL")
    return lora


def _own(tensor: Tensor) -> Tensor:
    """The tensor in the computer's memory, fit for gradients of others: what a node makes need not be."""
    tensor = tensor.detach().cpu()
    return tensor.clone() if tensor.is_inference() else tensor


def lora_model_of(found: AdapterSet) -> LoraModel | ExecutionBlocker:
    """The LORA_MODEL of adapters that are identified; where they have none, what stops the nodes that ask for it, and
    says why: nothing else of a result is lost by that.

    Each tensor has memory of its own, as Save LoRA Weights wants it.
    """
    try:
        with torch.inference_mode(False):
            made = convert_set(found, ConvertOptions("comfyui"))
            tensors, _ = emit(require_computed(made.adapter_set))
            return {key: tensor.clone() for key, tensor in tensors.items()}
    except LycoError as error:
        return ExecutionBlocker(f"{LORA_MODEL}: {error}")
