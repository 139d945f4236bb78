"""An adapter for every quantized Linear of a tiny model, and what it changes, as dense matrices."""

import functools

import torch
from torch import Tensor

from .quantized_models import linears
from .tables import dotted_file


def normal_of(seed: int):
    """A maker of tensors, each of other numbers."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator)


@functools.cache
def adapter_for(family: str, size: float = 0.1) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(a LoKr's tensors, path -> its exact change), which is `size` of a weight of unit gain."""
    modules = linears(family)
    tensors = dotted_file(modules, "lokr", normal_of(1))
    changes: dict[str, Tensor] = {}
    for path, (rows, columns) in modules.items():
        name = f"diffusion_model.{path}"
        tensors[f"{name}.lokr_w1"] *= size / columns**0.5
        factors = (tensors[f"{name}.{part}"].double() for part in ("lokr_w1", "lokr_w2_a", "lokr_w2_b"))
        w1, a, b = factors
        changes[path] = torch.kron(w1, a @ b) * float(tensors[f"{name}.alpha"]) / a.shape[1]
        assert changes[path].shape == (rows, columns)
    return tensors, changes
