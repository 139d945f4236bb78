"""Every algorithm that is computed from the weight, in every form, with what it does written out in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from lyco_core.adapters import BOFT, IA3, OFT, DoRA, GLoRA, OnBase, Swapped

from .zoo import CASES, normal

__all__ = ["ON_BASE", "OnBaseCase"]

_INNER = {case.name: case for case in CASES}


@dataclasses.dataclass(frozen=True)
class OnBaseCase:
    """One form."""

    name: str
    make: Callable[[], OnBase]
    changed: Callable[[OnBase, Tensor], Tensor]
    """The adapter and W in float64 -> W'."""
    shape: tuple[int, ...]


def _dora(name: str, axis: int) -> OnBaseCase:
    case = _INNER[name]

    def make() -> DoRA:
        inner = case.make()
        size = inner.shape[axis]
        shape = [1] * len(inner.shape)
        shape[axis] = size
        return DoRA.of(inner, normal(*shape).abs() + 1)

    def changed(adapter: OnBase, base: Tensor) -> Tensor:
        assert isinstance(adapter, DoRA)
        total = base + case.dense(adapter.inner)
        rows = total.transpose(0, axis).flatten(1)
        norm = rows.norm(dim=1).view(-1, *[1] * (base.dim() - 1)).transpose(0, axis)
        return total / norm * adapter.magnitude.double()

    return OnBaseCase(f"dora-{name}-{'out' if axis == 0 else 'in'}", make, changed, case.shape)


def _glora(adapter: OnBase, base: Tensor) -> Tensor:
    assert isinstance(adapter, GLoRA)
    a = adapter.a1.double().flatten(1) @ adapter.a2.double().flatten(1)
    b = torch.einsum("or,r...->o...", adapter.b1.double().flatten(1), adapter.b2.double())
    return base + (torch.einsum("oi...,ij->oj...", base, a) + b) * adapter.scale


def _old_glora(adapter: OnBase, base: Tensor) -> Tensor:
    assert isinstance(adapter, GLoRA)
    a, b = adapter.a2.double() @ adapter.a1.double(), adapter.b2.double() @ adapter.b1.double()
    return base + (base @ a + b) * adapter.scale


def _ia3(adapter: OnBase, base: Tensor) -> Tensor:
    assert isinstance(adapter, IA3)
    axis = 1 if adapter.on_input else 0
    shape = [1] * base.dim()
    shape[axis] = -1
    return base * (1 + adapter.weight.double().reshape(shape))


def _cayley(blocks: Tensor, limit: float | None) -> Tensor:
    skew = blocks - blocks.transpose(-1, -2)
    if limit and skew.norm() > limit:
        skew = skew * limit / skew.norm()
    eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype)
    return (eye + skew) @ torch.linalg.inv(eye - skew)


def _oft(adapter: OnBase, base: Tensor) -> Tensor:
    assert isinstance(adapter, OFT)
    turn = torch.block_diag(*_cayley(adapter.blocks.double(), (adapter.alpha or 0) * base.shape[0]))
    result = (turn.t() @ base.flatten(1)).view_as(base)
    return result if adapter.rescale is None else result * adapter.rescale.double()


def _boft(adapter: OnBase, base: Tensor) -> Tensor:
    """Each factor as a dense permutation of a block diagonal matrix."""
    assert isinstance(adapter, BOFT)
    result = base.flatten(1)
    size = adapter.blocks.shape[-1]
    for step, blocks in enumerate(_cayley(adapter.blocks.double(), (adapter.alpha or 0) * base.shape[0])):
        stride = (size // 2) * 2**step
        order = [
            c * 2 * stride + g * stride + k
            for c in range(len(base) // (2 * stride))
            for k in range(stride)
            for g in (0, 1)
        ]
        permutation = torch.eye(len(base), dtype=torch.float64)[order]
        result = permutation.t() @ torch.block_diag(*blocks) @ permutation @ result
    result = result.view_as(base)
    return result if adapter.rescale is None else result * adapter.rescale.double()


def _swapped(adapter: OnBase, base: Tensor) -> Tensor:
    assert isinstance(adapter, Swapped)
    half = len(base) // 2
    result = _boft(adapter.inner, torch.cat([base[half:], base[:half]]))
    return torch.cat([result[half:], result[:half]])


_DORA = (
    "lora",
    "lora-conv3",
    "lora-tucker",
    "loha",
    "loha-tucker",
    "lokr-low-w2",
    "lokr-full",
    "lokr-low-both",
    "lokr-conv3",
)

ON_BASE = [
    *(_dora(name, axis) for name in _DORA for axis in (0, 1)),
    OnBaseCase(
        "glora", lambda: GLoRA(normal(20, 3), normal(3, 20), normal(12, 3), normal(3, 20), alpha=2.0), _glora, (12, 20)
    ),
    OnBaseCase(
        "glora-conv3",
        lambda: GLoRA(normal(6, 2, 1, 1), normal(2, 6, 1, 1), normal(10, 2, 1, 1), normal(2, 6, 3, 3), alpha=1.0),
        _glora,
        (10, 6, 3, 3),
    ),
    OnBaseCase(
        "glora-old", lambda: GLoRA(normal(3, 20), normal(20, 3), normal(3, 20), normal(12, 3)), _old_glora, (12, 20)
    ),
    OnBaseCase("ia3-out", lambda: IA3(normal(12), on_input=False), _ia3, (12, 20)),
    OnBaseCase("ia3-in", lambda: IA3(normal(20), on_input=True), _ia3, (12, 20)),
    OnBaseCase("ia3-conv-in", lambda: IA3(normal(1, 6, 1, 1), on_input=True), _ia3, (10, 6, 3, 3)),
    OnBaseCase("oft", lambda: OFT(0.2 * normal(3, 4, 4)), _oft, (12, 20)),
    OnBaseCase("oft-rescaled", lambda: OFT(0.2 * normal(3, 4, 4), normal(12, 1) + 2), _oft, (12, 20)),
    OnBaseCase("oft-constrained", lambda: OFT(normal(3, 4, 4), alpha=0.05), _oft, (12, 20)),
    OnBaseCase("oft-conv3", lambda: OFT(0.2 * normal(5, 2, 2), normal(10, 1, 1, 1)), _oft, (10, 6, 3, 3)),
    OnBaseCase("boft", lambda: BOFT(0.2 * normal(3, 4, 4, 4)), _boft, (16, 20)),
    OnBaseCase("boft-rescaled", lambda: BOFT(0.2 * normal(2, 6, 4, 4), normal(24, 1), alpha=0.01), _boft, (24, 7)),
    OnBaseCase("boft-swapped", lambda: Swapped(BOFT(0.2 * normal(2, 6, 4, 4))), _swapped, (24, 20)),
    OnBaseCase("boft-conv3", lambda: BOFT(0.2 * normal(2, 2, 6, 6)), _boft, (12, 5, 3, 3)),
]
