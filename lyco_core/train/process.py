"""How noise is put into a latent, and what a model is asked of it: as the model's own sampler has it.

A training draws t from 0 at the data to 1 at the noise. What a sampler counts by is its σ, which is another number for
another kind of model; ε is the noise, x_0 the latent.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch
from torch import Tensor

from ..errors import TrainError
from .noise import NoiseOptions

__all__ = ["FLOW", "Discrete", "Flow", "FlowFromSigmas", "Process"]


class Process(Protocol):
    """All that a training has to know of the way from the data to the noise. σ is (n,), latents are (n, C, …)."""

    def sigma(self, t: Tensor) -> Tensor:
        """The σ of timesteps t, (n,)."""
        ...

    def noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """What a sampler would have at σ."""
        ...

    def target(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """The output of the model from which the sampler would get x_0."""
        ...

    def weights(self, options: NoiseOptions, sigma: Tensor) -> Tensor:
        """How much an item's loss counts for being at σ, beside what `noise.loss_weights` says, (n,)."""
        ...

    def require(self, options: NoiseOptions) -> None:
        """Raise `TrainError` for options that mean nothing for it."""
        ...


@dataclasses.dataclass(frozen=True)
class Flow:
    """A straight way, σ = t: x = (1 - σ)·x_0 + σ·ε, and the model says ε - x_0."""

    def sigma(self, t: Tensor) -> Tensor:
        """See `Process`."""
        return t

    def noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """See `Process`."""
        at = _wide(sigma, latents)
        return (1 - at) * latents + at * noise

    def target(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """See `Process`."""
        return noise - latents

    def weights(self, options: NoiseOptions, sigma: Tensor) -> Tensor:
        """See `Process`."""
        return torch.ones_like(sigma)

    def require(self, options: NoiseOptions) -> None:
        """See `Process`."""
        if options.min_snr_gamma:
            raise TrainError(
                "min_snr_gamma is for models that predict noise or v, SDXL and Stable Diffusion 1.x/2.x, and this is a "
                "flow; set it to 0"
            )


FLOW = Flow()


@dataclasses.dataclass(frozen=True)
class FlowFromSigmas(Flow):
    """The same flow of a model whose sampler counts σ = t / (1 - t) from x_0 on: x = x_0 + σ·ε (Cosmos-Predict2)."""

    sigma_max: float = 80.0
    """The largest that is sampled: a t beyond is trained there."""

    def sigma(self, t: Tensor) -> Tensor:
        """See `Process`."""
        t = t.clamp(max=self.sigma_max / (self.sigma_max + 1))
        return t / (1 - t)

    def noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """See `Process`."""
        return latents + _wide(sigma, latents) * noise


@dataclasses.dataclass(frozen=True, eq=False)
class Discrete:
    """Steps of a table of σ: x = x_0 + σ·ε, of which the model says ε, or v = (ε - σ·x_0) / √(1 + σ²)."""

    sigmas: Tensor
    """From the least noise to the most."""
    velocity: bool
    """Whether the model says v."""

    def sigma(self, t: Tensor) -> Tensor:
        """See `Process`: of the step that t falls into, from the first, which is above 0, to the last, which is 1."""
        count = len(self.sigmas)
        step = torch.ceil(t * count - 1e-3).long() - 1  # 1e-3: of what a float32 is off a step's end
        return self.sigmas.to(t)[step.clamp(0, count - 1)]

    def noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """See `Process`."""
        return latents + _wide(sigma, latents) * noise

    def target(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """See `Process`."""
        if not self.velocity:
            return noise
        at = _wide(sigma, latents)
        return (noise - at * latents) / (1 + at.square()).sqrt()

    def weights(self, options: NoiseOptions, sigma: Tensor) -> Tensor:
        """See `Process`: min-SNR (arXiv:2303.09556), of the loss of ε or of v."""
        if not options.min_snr_gamma:
            return torch.ones_like(sigma)
        snr = sigma**-2
        return snr.clamp(max=options.min_snr_gamma) / (snr + 1 if self.velocity else snr)

    def require(self, options: NoiseOptions) -> None:
        """See `Process`."""
        if options.weighting_scheme in ("sigma_sqrt", "cosmap"):
            raise TrainError(
                f"weighting_scheme is {options.weighting_scheme}, which weights a flow's loss, and this model predicts "
                "noise or v in steps; set it to none, or min_snr_gamma to 5"
            )


def _wide(sigma: Tensor, latents: Tensor) -> Tensor:
    return sigma.view(-1, *[1] * (latents.dim() - 1))
