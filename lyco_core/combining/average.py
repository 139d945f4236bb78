"""The average over checkpoints of one training: what share each has, and on what it is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch

from ..adapters import Adapter, alike_options
from ..errors import LycoError

__all__ = ["KINDS", "TAKEN_ON", "Average", "mean_of_factors", "of_one_training"]

KINDS = ("uniform", "ema", "post-hoc")
"""All alike; an exponential moving average; the power function's, of Karras et al. (arXiv:2312.02696)."""

TAKEN_ON = ("auto", "factors", "weights")
"""What is averaged: the factors if the files say that they are of one training, or always, or never: then ΔW."""

_TRAINING = ("ss_session_id", "ss_training_started_at")
"""Metadata that tells one training from another."""


@dataclasses.dataclass(frozen=True)
class Average:
    """An average over checkpoints in the order of their training."""

    kind: str = "uniform"
    beta: float = 0.95
    """Of `ema`: what of the average stays with each further checkpoint."""
    sigma_rel: float = 0.1
    """Of `post-hoc`: how wide the average is, as a share of the training so far."""
    on: str = "auto"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LycoError(f"the average is {self.kind!r}, expected {', '.join(KINDS)}")
        if self.on not in TAKEN_ON:
            raise LycoError(f"the average is taken on {self.on!r}, expected {', '.join(TAKEN_ON)}")
        if not 0 < self.beta < 1:
            raise LycoError(f"beta is {self.beta:g}, expected a number between 0 and 1")
        if not 0 < self.sigma_rel <= 12**-0.5:
            raise LycoError(f"sigma_rel is {self.sigma_rel:g}, expected a number above 0, and at most 0.288")

    def shares(self, count: int) -> list[float]:
        """What share of the average each of `count` checkpoints has; together they are 1."""
        shares = [1.0]
        for step in range(1, count):
            beta = self._kept(step)
            shares = [share * beta for share in shares] + [1 - beta]
        return shares

    def _kept(self, step: int) -> float:
        """What of the average so far stays when checkpoint number `step`, from 0, comes to it."""
        if self.kind == "uniform":
            return step / (step + 1)
        return self.beta if self.kind == "ema" else (1 - 1 / step) ** (_gamma(self.sigma_rel) + 1)


def _gamma(sigma_rel: float) -> float:
    """The power function's exponent: the positive root of γ³ + 7γ² + (16 - σ⁻²)γ + (12 - σ⁻²), the paper's (126)."""
    t = sigma_rel**-2
    roots = cast(Sequence[complex], np.roots([1, 7, 16 - t, 12 - t]))
    return max(root.real for root in roots if abs(root.imag) < 1e-9)


def of_one_training(metadata: Sequence[Mapping[str, str]]) -> bool:
    """Whether files say by their metadata that they are checkpoints of one training."""
    told = [{key: notes[key] for key in _TRAINING if notes.get(key) not in (None, "", "None")} for notes in metadata]
    return bool(told[0]) and all(notes == told[0] for notes in told)


def mean_of_factors(adapters: Sequence[Adapter], shares: Sequence[float]) -> Adapter | None:
    """The adapter whose tensors are the average of theirs, in their own dtypes; None if they have not the same form."""
    first = adapters[0]
    shapes = {name: tensor.shape for name, tensor in first.tensors.items()}
    for other in adapters[1:]:
        same = type(other) is type(first) and other.scale == first.scale and alike_options(first, other)
        if not same or {name: tensor.shape for name, tensor in other.tensors.items()} != shapes:
            return None
    made: dict[str, torch.Tensor] = {}
    for name, tensor in first.tensors.items():
        total = torch.zeros(tensor.shape, dtype=torch.float64)
        for adapter, share in zip(adapters, shares, strict=True):
            total.add_(adapter.tensors[name].double(), alpha=share)
        made[name] = total.to(tensor.dtype)
    return first.with_tensors(made)
