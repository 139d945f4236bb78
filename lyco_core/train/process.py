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

__all__ = ["FLOW", "Discrete", "Flow", "FlowFromSigmas", "FlowToData", "Process"]

_OF_DATA = ("noise_scale_start", "noise_scale_end", "noise_clip_std")


class Process(Protocol):
    """All that a training has to know of the way from the data to the noise. σ is (n,), latents are (n, C, …)."""

    def sigma(self, t: Tensor) -> Tensor:
        """The σ of timesteps t, (n,)."""
        ...

    def noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """What a sampler would have at σ."""
        ...

    def target(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """What is to be predicted."""
        ...

    def predicted(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """What the output of the model says of the target. `x`: what the model was given, in its precision."""
        ...

    def weights(self, options: NoiseOptions, sigma: Tensor) -> Tensor:
        """How much an item's loss counts for being at σ, beside what `noise.loss_weights` says, (n,)."""
        ...

    def under(self, options: NoiseOptions) -> Process:
        """The process as options change it. Raises `TrainError` for options that mean nothing for it."""
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

    def predicted(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """See `Process`."""
        return output

    def weights(self, options: NoiseOptions, sigma: Tensor) -> Tensor:
        """See `Process`."""
        return torch.ones_like(sigma)

    def under(self, options: NoiseOptions) -> Process:
        """See `Process`."""
        _require_unset(options)
        return self._under(options)

    def _under(self, options: NoiseOptions) -> Process:
        if options.min_snr_gamma:
            raise TrainError(
                "min_snr_gamma is for models that predict noise or v, SDXL and Stable Diffusion 1.x/2.x, and this is a "
                "flow; set it to 0"
            )
        return self


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


@dataclasses.dataclass(frozen=True)
class FlowToData(Flow):
    """A flow of pixels under noise that is several times as large, x = (1 - σ)·x_0 + σ·s·ε, of which x_0 is learned: so
    Musubi Tuner trains HiDream-O1, whatever σ. The model says (x - x_0) / σ.
    """

    start: float
    """s at σ = 1."""
    end: float
    """s at σ = 0."""

    def noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """See `Process`."""
        at = _wide(sigma, latents)
        return (1 - at) * latents + at * noise * (self.start + (self.end - self.start) * (1 - at))

    def target(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """See `Process`."""
        return latents

    def predicted(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """See `Process`."""
        return x.float() - output * _wide(sigma, x).clamp(min=_DIVISOR)

    def under(self, options: NoiseOptions) -> Process:
        """See `Process`."""
        if options.weighting_scheme != "none":
            raise TrainError(
                f"weighting_scheme is {options.weighting_scheme}, and Musubi Tuner trains this model with none alone; "
                "set it to none"
            )
        if options.timestep_sampling not in _BY_NO_SIZE:
            raise TrainError(
                f"timestep_sampling is {options.timestep_sampling}, which goes by the size of a latent, and this model "
                f"has pixels; set it to one of {', '.join(_BY_NO_SIZE)}"
            )
        start = options.noise_scale_start or self.start
        return FlowToData(start, options.noise_scale_end or start)._under(options)


_DIVISOR = 1e-3
"""The least by which HiDream-O1 divides, for a smaller σ too."""

_BY_NO_SIZE = ("uniform", "sigmoid", "shift", "logsnr", "sigma")


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

    def predicted(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """See `Process`."""
        return output

    def weights(self, options: NoiseOptions, sigma: Tensor) -> Tensor:
        """See `Process`: min-SNR (arXiv:2303.09556), of the loss of ε or of v."""
        if not options.min_snr_gamma:
            return torch.ones_like(sigma)
        snr = sigma**-2
        return snr.clamp(max=options.min_snr_gamma) / (snr + 1 if self.velocity else snr)

    def under(self, options: NoiseOptions) -> Process:
        """See `Process`."""
        _require_unset(options)
        if options.weighting_scheme in ("sigma_sqrt", "cosmap"):
            raise TrainError(
                f"weighting_scheme is {options.weighting_scheme}, which weights a flow's loss, and this model predicts "
                "noise or v in steps; set it to none, or min_snr_gamma to 5"
            )
        return self


def _require_unset(options: NoiseOptions) -> None:
    """Raise `TrainError` for options of HiDream-O1 alone."""
    for name in _OF_DATA:
        if value := getattr(options, name):
            raise TrainError(f"{name} is {value:g}, and is for HiDream-O1 alone; set it to 0")


def _wide(sigma: Tensor, latents: Tensor) -> Tensor:
    return sigma.view(-1, *[1] * (latents.dim() - 1))
