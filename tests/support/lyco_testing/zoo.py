"""One adapter of every form, beside a dense ΔW written straight from the definition."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from lyco_core.adapters import Adapter, Full, LoHa, LoKr, LoRA


@dataclasses.dataclass(frozen=True)
class Case:
    """`make(dtype)` builds the adapter; `dense(adapter)` is its ΔW in float64, scale applied."""

    name: str
    make: Callable[[], Adapter]
    dense: Callable[[Adapter], Tensor]
    shape: tuple[int, ...]


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) * 31 + len(shape)))


def wide(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.double()


def dense_lora(a: LoRA) -> Tensor:
    up, down, mid = wide(a.up).flatten(1), wide(a.down), wide(a.mid)
    if mid is not None:
        delta = torch.einsum("ijhw,pi,jq->pqhw", mid, up, down.flatten(1))
    else:
        delta = (up @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])
    return delta * (1 if a.alpha is None else a.alpha / a.down.shape[0])


def dense_loha(a: LoHa) -> Tensor:
    def half(x: Tensor, y: Tensor, mid: Tensor | None) -> Tensor:
        x, y = wide(x), wide(y)
        return x @ y if mid is None else torch.einsum("ijhw,ip,jq->pqhw", wide(mid), x, y)

    delta = half(a.w1_a, a.w1_b, a.t1) * half(a.w2_a, a.w2_b, a.t2)
    return delta * (1 if a.alpha is None else a.alpha / a.w1_b.shape[0])


def dense_full(a: Full) -> Tensor:
    return a.diff.double()


def dense_lokr(a: LoKr) -> Tensor:
    w1 = wide(a.w1) if a.w1 is not None else wide(a.w1_a) @ wide(a.w1_b)
    if a.w2 is not None:
        w2 = wide(a.w2)
    elif a.t2 is not None:
        w2 = torch.einsum("ijhw,ip,jq->pqhw", wide(a.t2), wide(a.w2_a), wide(a.w2_b)).contiguous()
    else:
        w2 = wide(a.w2_a) @ wide(a.w2_b)
    delta = torch.kron(w1.reshape(*w1.shape, *[1] * (w2.dim() - 2)), w2)
    full = a.w1 is not None and a.w2 is not None
    rank = a.w2_b.shape[0] if a.w2_b is not None else (a.w1_b.shape[0] if a.w1_b is not None else 1)
    return delta if full or a.alpha is None else delta * (a.alpha / rank)


def _tucker_lora() -> LoRA:
    return LoRA(normal(10, 4, 1, 1), normal(4, 6, 1, 1), normal(4, 4, 3, 3), alpha=2.0)


def _tucker_loha() -> LoHa:
    return LoHa(normal(3, 8), normal(3, 6), normal(3, 8), normal(3, 6), normal(3, 3, 3, 3), normal(3, 3, 3, 3), alpha=1)


def _tucker_lokr() -> LoKr:
    return LoKr(w1=normal(2, 3), w2_a=normal(2, 5), w2_b=normal(2, 4), t2=normal(2, 2, 3, 3), alpha=1.0)


CASES = [
    Case("lora", lambda: LoRA(normal(12, 3), normal(3, 20), alpha=2.0), dense_lora, (12, 20)),
    Case("lora-no-alpha", lambda: LoRA(normal(7, 2), normal(2, 5)), dense_lora, (7, 5)),
    Case("lora-conv1", lambda: LoRA(normal(12, 3, 1, 1), normal(3, 8, 1, 1), alpha=3.0), dense_lora, (12, 8, 1, 1)),
    Case("lora-conv3", lambda: LoRA(normal(10, 3, 1, 1), normal(3, 6, 3, 3), alpha=1.5), dense_lora, (10, 6, 3, 3)),
    Case("lora-tucker", _tucker_lora, dense_lora, (10, 6, 3, 3)),
    Case(
        "loha",
        lambda: LoHa(normal(12, 3), normal(3, 20), normal(12, 3) + 1, normal(3, 20) - 1, alpha=2.0),
        dense_loha,
        (12, 20),
    ),
    Case(
        "loha-conv3-flat",
        lambda: LoHa(normal(8, 2), normal(2, 54), normal(8, 2) - 1, normal(2, 54), alpha=1.0),
        dense_loha,
        (8, 54),
    ),
    Case("loha-tucker", _tucker_loha, dense_loha, (8, 6, 3, 3)),
    Case(
        "lokr-low-w2",
        lambda: LoKr(w1=normal(4, 3), w2_a=normal(5, 2), w2_b=normal(2, 6), alpha=1.0),
        dense_lokr,
        (20, 18),
    ),
    Case("lokr-full", lambda: LoKr(w1=normal(3, 4), w2=normal(5, 6), alpha=512.0), dense_lokr, (15, 24)),
    Case(
        "lokr-low-w1",
        lambda: LoKr(w1_a=normal(6, 2), w1_b=normal(2, 5), w2=normal(4, 3), alpha=1.0),
        dense_lokr,
        (24, 15),
    ),
    Case(
        "lokr-low-both",
        lambda: LoKr(w1_a=normal(6, 3), w1_b=normal(3, 8), w2_a=normal(7, 2), w2_b=normal(2, 9), alpha=3.0),
        dense_lokr,
        (42, 72),
    ),
    Case("lokr-conv1", lambda: LoKr(w1=normal(2, 3), w2=normal(4, 5, 1, 1), alpha=1.0), dense_lokr, (8, 15, 1, 1)),
    Case("lokr-conv3", lambda: LoKr(w1=normal(2, 3), w2=normal(4, 5, 3, 3), alpha=1.0), dense_lokr, (8, 15, 3, 3)),
    Case(
        "lokr-conv3-flat",
        lambda: LoKr(w1=normal(2, 3), w2_a=normal(4, 2), w2_b=normal(2, 45), alpha=1.0),
        dense_lokr,
        (8, 135),
    ),
    Case("lokr-tucker", _tucker_lokr, dense_lokr, (10, 12, 3, 3)),
    Case("full", lambda: Full(normal(12, 20)), dense_full, (12, 20)),
    Case("full-conv3", lambda: Full(normal(8, 5, 3, 3)), dense_full, (8, 5, 3, 3)),
]
