"""`scale_weight_norms`: no module's ΔW grows beyond a norm (max norm regularization, as kohya's and LyCORIS' trainers
have it)."""

from __future__ import annotations

from collections.abc import Collection

import torch

from .trainable import Trainable

__all__ = ["limit_norms"]


@torch.no_grad()
def limit_norms(trainables: Collection[Trainable], limit: float) -> None:
    """Scale down each whose ΔW has a norm above `limit`: all of its factors by the same part.

    Nothing waits for the device: what fits already is multiplied by 1.
    """
    norms = torch.stack([trainable.norm() for trainable in trainables])
    ratios = (limit / norms.clamp(min=limit)).unbind()
    for trainable, ratio in zip(trainables, ratios, strict=True):
        factors = list(trainable.parameters())
        part = ratio ** (1 / len(factors))  # ΔW is linear in each
        for factor in factors:
            factor.mul_(part)
