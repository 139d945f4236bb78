"""Every algorithm that is computed from the weight, in every form, with what it does written out in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from lyco_core.adapters import BOFT, CAYLEY, IA3, OFT, BoRA, DoRA, GLoRA, OFTv2, OnBase, SplitOFT, Swapped

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


def _dora_by_base() -> OnBaseCase:
    """Magnitudes for ComfyUI's norm of rows: the weight's alone."""
    case = _INNER["lokr-low-w2"]

    def changed(adapter: OnBase, base: Tensor) -> Tensor:
        assert isinstance(adapter, DoRA)
        total = base + case.dense(adapter.inner)
        return total / base.norm(dim=1, keepdim=True) * adapter.magnitude.double()

    def make() -> DoRA:
        return DoRA.of(case.make(), normal(case.shape[0], 1).abs() + 1, by_base=True)

    return OnBaseCase("dora-by-base", make, changed, case.shape)


def _bora(name: str) -> OnBaseCase:
    case = _INNER[name]

    def changed(adapter: OnBase, base: Tensor) -> Tensor:
        assert isinstance(adapter, BoRA)
        total = base + case.dense(adapter.inner)
        rows = total / total.norm(dim=1, keepdim=True) * adapter.row.double()
        return rows / rows.norm(dim=0, keepdim=True) * adapter.column.double()

    def make() -> BoRA:
        out, width = case.shape
        return BoRA(case.make(), normal(out, 1).abs() + 1, normal(1, width).abs() + 1)

    return OnBaseCase(f"bora-{name}", make, changed, case.shape)


def _oftv2(adapter: OnBase, base: Tensor) -> Tensor:
    """R as a dense block diagonal matrix, Q element by element."""
    assert isinstance(adapter, OFTv2)
    blocks, numbers = adapter.vectors.shape
    size = next(b for b in range(2, 99) if b * (b - 1) // 2 == numbers)
    made: list[Tensor] = []
    for vector in adapter.vectors.double() / (2 * (size - 1) ** 0.5 if adapter.scaled else 1):
        skew, entries = torch.zeros(size, size, dtype=torch.float64), iter(vector)
        for row in range(size):
            for column in range(row + 1, size):
                skew[row, column] = next(entries)
        skew, eye = skew - skew.t(), torch.eye(size, dtype=torch.float64)
        if adapter.terms == CAYLEY:
            made.append((eye - skew) @ torch.linalg.inv(eye + skew))
            continue
        assert adapter.terms == 5
        square = skew @ skew
        made.append(eye + 2 * skew + 2 * square + 2 * square @ skew + square @ square)
    flat = base.flatten(1)
    turn = torch.block_diag(*(made * (flat.shape[1] // size) if blocks == 1 else made))
    if adapter.inner is not None:
        case = _INNER["lokr-low-w2"]
        flat = flat + case.dense(adapter.inner.inner)
        flat = flat / flat.norm(dim=1, keepdim=True) * adapter.inner.magnitude.double()
    if adapter.magnitude is not None and adapter.initial_norm is not None:
        flat = flat * (adapter.magnitude.double() / adapter.initial_norm.double())
    return (flat @ (turn if base.dim() > 2 and not adapter.of_peft else turn.t())).view_as(base)


def _oftv2_on_lokr() -> OFTv2:
    inner = _INNER["lokr-low-w2"].make()
    dora = DoRA.of(inner, normal(inner.shape[0], 1).abs() + 1)
    return OFTv2(0.2 * normal(6, 3), scaled=True, inner=dora)


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


def _split_oft(adapter: OnBase, base: Tensor) -> Tensor:
    """A constraint for each part."""
    assert isinstance(adapter, SplitOFT)
    turns: list[Tensor] = []
    for blocks in adapter.blocks:
        rows = blocks.shape[0] * blocks.shape[1]
        turns += _cayley(blocks.double(), (adapter.alpha or 0) * rows)
    return torch.block_diag(*turns).t() @ base


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


def _swapped(case: OnBaseCase) -> OnBaseCase:
    """The same of a weight whose halves of rows have changed places."""

    def changed(adapter: OnBase, base: Tensor) -> Tensor:
        assert isinstance(adapter, Swapped)
        half = len(base) // 2
        result = case.changed(adapter.inner, torch.cat([base[half:], base[:half]]))
        return torch.cat([result[half:], result[:half]])

    return OnBaseCase(f"{case.name}-swapped", lambda: Swapped(case.make()), changed, case.shape)


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

_AS_TRAINED = [
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
    OnBaseCase("oft-split", lambda: SplitOFT((0.2 * normal(2, 3, 3), 0.3 * normal(2, 4, 4))), _split_oft, (14, 20)),
    OnBaseCase(
        "oft-split-constrained",
        lambda: SplitOFT((normal(2, 2, 2), normal(2, 3, 3), normal(2, 3, 3) + 1), alpha=0.05),
        _split_oft,
        (16, 20),
    ),
    _dora_by_base(),
    _bora("lokr-low-w2"),
    _bora("lokr-full"),
    _bora("lora"),
    OnBaseCase("oftv2", lambda: OFTv2(0.2 * normal(5, 6)), _oftv2, (12, 20)),
    OnBaseCase("oftv2-scaled", lambda: OFTv2(normal(2, 45), scaled=True), _oftv2, (12, 20)),
    OnBaseCase("oftv2-shared", lambda: OFTv2(0.2 * normal(1, 6)), _oftv2, (12, 20)),
    OnBaseCase("oftv2-cayley", lambda: OFTv2(0.2 * normal(5, 6), terms=CAYLEY, of_peft=True), _oftv2, (12, 20)),
    OnBaseCase("oftv2-conv3", lambda: OFTv2(0.2 * normal(18, 3)), _oftv2, (10, 6, 3, 3)),
    OnBaseCase("oftv2-conv1-peft", lambda: OFTv2(0.2 * normal(2, 3), of_peft=True), _oftv2, (10, 6, 1, 1)),
    OnBaseCase(
        "oftv2-dora", lambda: OFTv2(0.2 * normal(5, 6), normal(12, 1).abs() + 1, normal(12, 1) + 9), _oftv2, (12, 20)
    ),
    OnBaseCase("oftv2-lokr-dora", _oftv2_on_lokr, _oftv2, (20, 18)),
    OnBaseCase("boft", lambda: BOFT(0.2 * normal(3, 4, 4, 4)), _boft, (16, 20)),
    OnBaseCase("boft-rescaled", lambda: BOFT(0.2 * normal(2, 6, 4, 4), normal(24, 1), alpha=0.01), _boft, (24, 7)),
    OnBaseCase("boft-conv3", lambda: BOFT(0.2 * normal(2, 2, 6, 6)), _boft, (12, 5, 3, 3)),
]

ON_BASE = [
    *_AS_TRAINED,
    *(
        _swapped(c)
        for c in _AS_TRAINED
        if c.name in ("boft", "boft-conv3", "bora-lora", "oft-split", "oftv2-lokr-dora")
    ),
]
