"""What ComfyUI's model patcher holds for us: an adapter that changes a weight in place."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from comfy.weight_adapter.base import WeightAdapterBase

from ....lyco_core.adapters import Adapter, Additive
from ....lyco_core.errors import AdapterError
from ..protocols import Reorder, Rows

__all__ = ["LycoPatch"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What an adapter is beside its tensors, which the patcher moves and rebuilds by itself."""

    form: Adapter
    """The adapter as it came; of its tensors, only what they are called counts here."""
    names: tuple[str, ...]
    scaled_inputs: bool = False
    """Whether the last tensor is what the module multiplies its input by before the weight."""


class LycoPatch(WeightAdapterBase):
    """`weight += strength * ΔW`, by `Adapter.add_to_`.

    ComfyUI rebuilds a patch as ``cls(loaded_keys, weights)`` after moving every tensor that it
    finds in the tuple `weights`; the recipe in its first place passes through untouched.
    """

    name = "lyco"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    @classmethod
    def of(cls, adapter: Adapter, prefix: str) -> LycoPatch:
        """The patch for an adapter whose keys in its file begin with `prefix`."""
        tensors = adapter.tensors
        return cls({prefix}, (Recipe(adapter, tuple(tensors)), *tensors.values()))

    def behind(self, inputs: torch.Tensor) -> LycoPatch:
        """This patch for a module that multiplies x by `inputs`, (in,), before its weight: it changes both as one."""
        recipe, *tensors = self.weights
        recipe = dataclasses.replace(recipe, scaled_inputs=True)
        return LycoPatch(self.loaded_keys, (recipe, *tensors[: len(recipe.names)], inputs))

    @property
    def adapter(self) -> Adapter:
        recipe, *tensors = self.weights
        return recipe.form.with_tensors(dict(zip(recipe.names, tensors, strict=False)))

    def calculate_weight(
        self,
        weight: torch.Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Rows | None,
        function: Reorder,
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: object = None,
    ) -> torch.Tensor:
        """Change `weight` in place, and return it. Raises: ComfyUI must not sample with half a patch."""
        strength = float(strength)  # of a hook under keyframes it is a tensor
        try:
            if not self.weights[0].scaled_inputs:
                return self._change_(weight, strength, function)
            inputs = self.weights[-1].to(weight.device, torch.float32)
            seen = self._change_(weight.to(torch.float32) * inputs, strength, function)
            return weight.copy_(seen.div_(inputs))
        except AdapterError as error:
            raise error.within(f"{key} ({', '.join(self.loaded_keys)})") from None

    def _change_(self, weight: torch.Tensor, strength: float, function: Reorder) -> torch.Tensor:
        adapter = self.adapter
        if leaves_unchanged(function, weight):
            return adapter.add_to_(weight, strength)
        if isinstance(adapter, Additive):
            delta = adapter.delta_weight(device=weight.device).reshape(weight.shape)
            weight += function(delta * strength).to(weight.dtype)
            return weight
        order = row_order(function, weight.shape[0]).to(weight.device)
        trained = weight[order.argsort()]
        return weight.copy_(adapter.add_to_(trained, strength)[order])


def leaves_unchanged(function: Reorder, weight: torch.Tensor) -> bool:
    """Whether `function` is the identity, which ComfyUI passes where a patch has none.

    Told by trying it on one column: ΔW need not be built where it is.
    """
    probe = torch.ones((weight.shape[0], *[1] * (weight.dim() - 1)))
    result = function(probe)
    return result is probe and bool((probe == 1).all())


def row_order(function: Reorder, rows: int) -> torch.Tensor:
    """Which row of the trainer's weight is each of the model's, where `function` turns the one into the other.

    ComfyUI's key map has such a function where the model keeps the halves of a trainer's weight in
    the other order (FLUX.1's `norm_out.linear`).

    Raises:
        AdapterError: it does more than to order them.
    """
    order = function(torch.arange(rows).view(-1, 1)).flatten()
    if order.is_floating_point() or not torch.equal(order.sort().values, torch.arange(rows)):
        raise AdapterError(
            "ComfyUI turns what the adapter adds into the model's form by more than an order of rows, which cannot be "
            "undone; there is no exact way to apply it here"
        )
    return order
