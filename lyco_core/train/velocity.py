"""A frozen model as the loop sees it: what predicts a velocity, and how far that is off."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .losses import LossOptions, item_losses
from .noise import NoiseOptions
from .process import Process
from .timesteps import loss_weights

__all__ = ["Errors", "VelocityModel"]

_MEAN_SQUARE = LossOptions()


class VelocityModel(Protocol):
    """A frozen model to which the network is attached."""

    device: torch.device
    dtype: torch.dtype
    """What it computes in."""

    def groups(self, conditions: Sequence[Any]) -> list[list[int]]:
        """Which of a batch's conditions the model can take at once, as indices."""
        ...

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        """The prediction of its process's target, of a flow ε - x_0, (n, C, …) float32, for x (n, C, …) at σ t (n,)."""
        ...


@dataclasses.dataclass(frozen=True)
class Errors:
    """How far a model's predictions are off."""

    model: VelocityModel
    process: Process
    """How the model's sampler has its noise."""

    def of(
        self, latents: Tensor, noise: Tensor, t: Tensor, conditions: Sequence[Any], loss: LossOptions = _MEAN_SQUARE
    ) -> Tensor:
        """The loss of each item's prediction, (n,)."""
        latents, noise, t = (tensor.to(self.model.device, torch.float32) for tensor in (latents, noise, t))
        sigma = self.process.sigma(t)
        found = self.model.velocity(self.process.noised(latents, noise, sigma), sigma, conditions)
        return item_losses(loss, found.float() - self.process.target(latents, noise, sigma), t)

    def weights(self, noise: NoiseOptions, t: Tensor) -> Tensor:
        """How much the loss at each timestep counts, (n,)."""
        return loss_weights(noise, t) * self.process.weights(noise, self.process.sigma(t))
