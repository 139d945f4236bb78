"""At which timestep t of the flow an item is trained, and how much its loss counts there: Musubi Tuner's ways.

t is 0 at the data and 1 at the noise: x_t = (1 - t)·x_0 + t·ε. What Musubi calls the shift of a
flow is the map t -> k·t / (1 + (k - 1)·t).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import TrainError
from .randoms import Source

if TYPE_CHECKING:
    from .noise import NoiseOptions

__all__ = ["MIXTURES", "SAMPLINGS", "loss_weights", "sample_times"]

_TRIES = 1000
"""How often timesteps outside of min_timestep to max_timestep are drawn again."""


def _sigmoid(options: NoiseOptions, source: Source) -> Tensor:
    return torch.sigmoid(options.sigmoid_scale * source.normal())


def _logsnr(options: NoiseOptions, source: Source) -> Tensor:
    return torch.sigmoid(-(options.logit_mean + options.logit_std * source.normal()) / 2)


def _wide(_: NoiseOptions, source: Source) -> Tensor:
    return torch.sigmoid(1.5 * source.normal())


def _by_pixels(_: NoiseOptions, size: tuple[int, int]) -> float:
    """Ideogram 4's: the side of a picture of 16 pixels to a token, in 512 of them."""
    return math.sqrt(size[0] * size[1]) / 32


def _density(options: NoiseOptions, source: Source) -> Tensor:
    """The timesteps that `sigma` draws: by the weighting scheme, on the grid of 1000 steps."""
    if options.weighting_scheme == "logit_normal":
        u = torch.sigmoid(options.logit_mean + options.logit_std * source.normal())
    else:
        u = source.uniform()
        if options.weighting_scheme == "mode":  # SD3 (arXiv:2403.03206), section 3.1
            u = 1 - u - options.mode_scale * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    return 1 - torch.floor(u.clamp(0, 1 - 2**-24) * 1000) / 1000


def _shifted(t: Tensor, k: float) -> Tensor:
    return k * t / (1 + (k - 1) * t)


def _by_size(patch: int, far: tuple[int, float]) -> Callable[[NoiseOptions, tuple[int, int]], float]:
    """A shift that grows with the picture: e^μ, μ linear in its tokens through (256, 0.5) and `far`."""
    slope = (far[1] - 0.5) / (far[0] - 256)

    def shift(_: NoiseOptions, size: tuple[int, int]) -> float:
        tokens = (size[0] // patch) * (size[1] // patch)
        return math.exp(0.5 + slope * (tokens - 256))

    return shift


Draw = Callable[["NoiseOptions", Source], Tensor]
Shift = Callable[["NoiseOptions", tuple[int, int]], float]

SAMPLINGS: dict[str, tuple[Draw, Shift | None]] = {
    "sigma": (_density, None),
    "uniform": (lambda _, source: source.uniform(), None),
    "sigmoid": (_sigmoid, None),
    "shift": (_sigmoid, lambda options, _: options.discrete_flow_shift),
    "flux_shift": (_sigmoid, _by_size(2, (4096, 1.15))),
    "flux2_shift": (_sigmoid, _by_size(1, (4096, 1.15))),
    "qwen_shift": (_sigmoid, _by_size(2, (8192, 0.9))),
    "krea2_shift": (_sigmoid, _by_size(2, (6400, 1.15))),
    "ideogram4_shift": (_wide, _by_pixels),
    "logsnr": (_logsnr, None),
}
"""`timestep_sampling` -> how t is drawn, and by how much it is then shifted for a latent of (height, width)."""

MIXTURES = {"qinglong_flux": ("flux_shift", 0.79, 0.9), "qinglong_qwen": ("qwen_shift", 0.95, 0.95)}
"""`timestep_sampling` -> the sampling that most timesteps are of, their part, and the part up to which the next are
logsnr's; the rest lie at the data, where log-SNR is N(5.36, 1)."""

_WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigma_sqrt": lambda sigma: sigma**-2.0,
    "cosmap": lambda sigma: 2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2)),
}
"""`weighting_scheme` -> weight of a timestep on the grid of 1000 steps, from 0.001 to 1."""


def sample_times(
    options: NoiseOptions, count: int, size: tuple[int, int], generator: torch.Generator, *, dealt: Tensor | None = None
) -> Tensor:
    """`count` timesteps t from 0 to 1, (count,) float32 on the CPU.

    Args:
        size: height and width of the latent.
        generator: a CPU one.
        dealt: where in the distribution each lies, from 0 to 1; None: anywhere.

    Raises:
        TrainError: with `preserve_distribution_shape`, hardly any draw falls between the bounds.
    """
    low, high = options.min_timestep / 1000, options.max_timestep / 1000
    source = Source(count, generator, dealt)
    if not options.preserve_distribution_shape:
        return _draw(options, size, source) * (high - low) + low
    kept = torch.empty(0)
    for _ in range(_TRIES):
        drawn = _draw(options, size, source)
        kept = torch.cat([kept, drawn[(drawn >= low) & (drawn <= high)]])
        if len(kept) >= count:
            return kept[:count]
        source = source.again(options.num_timestep_buckets)
    raise TrainError(
        f"of {_TRIES * count} timesteps that {options.timestep_sampling} draws {len(kept)} lie between min_timestep "
        f"{options.min_timestep:g} and max_timestep {options.max_timestep:g}; widen them, or do without "
        "preserve_distribution_shape"
    )


def _draw(options: NoiseOptions, size: tuple[int, int], source: Source) -> Tensor:
    if options.timestep_sampling not in MIXTURES:
        return _drawn(options, options.timestep_sampling, size, source)
    most, first, second = MIXTURES[options.timestep_sampling]
    decided = torch.rand(source.count, generator=source.generator)
    near = torch.sigmoid(-(5.36 + source.normal()) / 2)
    t = torch.where(decided < second, _drawn(options, "logsnr", size, source), near)
    return torch.where(decided < first, _drawn(options, most, size, source), t)


def _drawn(options: NoiseOptions, sampling: str, size: tuple[int, int], source: Source) -> Tensor:
    draw, shift = SAMPLINGS[sampling]
    t = draw(options, source)
    return t if shift is None else _shifted(t, shift(options, size))


def loss_weights(options: NoiseOptions, t: Tensor) -> Tensor:
    """The weight of each item's mean squared error in the loss, (count,).

    As in Musubi the weight is that of the nearest step of the grid, and of timestep 1000·t + 1 for
    all samplings but sigma, whose timesteps lie on the grid: so none weighs more than a million.
    """
    weighting = _WEIGHTINGS.get(options.weighting_scheme)
    if weighting is None:
        return torch.ones_like(t)
    timestep = t * 1000 + (0 if options.timestep_sampling == "sigma" else 1)
    return weighting(torch.floor(timestep + 0.5).clamp(1, 1000) / 1000)
