"""At which timestep t of the flow an item is trained, and how much its loss counts there: Musubi Tuner's ways.

t is 0 at the data and 1 at the noise: x_t = (1 - t)·x_0 + t·ε. What Musubi calls the shift of a
flow is the map t -> k·t / (1 + (k - 1)·t).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..architectures import TrainedFamily
from ..errors import TrainError
from .option import OptionGroup, Saved, option
from .randoms import Source
from .rules import Choice, Number, Truth, Whole

__all__ = ["SAMPLINGS", "NoiseOptions", "loss_weights", "resolve_sampling", "sample_times"]

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

_MIXTURES = {"qinglong_flux": ("flux_shift", 0.79, 0.9), "qinglong_qwen": ("qwen_shift", 0.95, 0.95)}
"""`timestep_sampling` -> the sampling that most timesteps are of, their part, and the part up to which the next are
logsnr's; the rest lie at the data, where log-SNR is N(5.36, 1)."""

_WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigma_sqrt": lambda sigma: sigma**-2.0,
    "cosmap": lambda sigma: 2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2)),
}
"""`weighting_scheme` -> weight of a timestep on the grid of 1000 steps, from 0.001 to 1."""


@dataclasses.dataclass(frozen=True)
class NoiseOptions(OptionGroup):
    """How the timesteps are drawn and their losses weighted."""

    timestep_sampling: str = option(
        "sigma",
        Choice(("auto", *SAMPLINGS, *_MIXTURES)),
        "How the timesteps are drawn. auto: as Musubi's page on the model says, with its flow shift. sigma: by the "
        "weighting scheme's own density, which ignores the shift. qinglong: a mixture of a shift, logsnr and timesteps "
        "near the data.",
        rare=False,
        node_default="auto",
        saved=Saved.ALWAYS,
        draws=True,
    )
    discrete_flow_shift: float = option(
        1.0,
        Number(1e-3),
        "For shift: above 1 more training at high noise (layout), below 1 at low noise (detail).",
        rare=False,
        saved=Saved.ALWAYS,
        draws=True,
    )
    sigmoid_scale: float = option(
        1.0,
        Number(),
        "For sigmoid and the shifts: wider draws above 1, narrower below.",
        saved=Saved.ALWAYS,
        draws=True,
    )
    weighting_scheme: str = option(
        "none",
        Choice(("none", "logit_normal", "mode", "sigma_sqrt", "cosmap")),
        "logit_normal and mode draw the timesteps of sigma; sigma_sqrt and cosmap weight the loss of every sampling.",
        saved=Saved.ALWAYS,
        draws=True,
    )
    logit_mean: float = option(
        0.0, Number(-math.inf), "For logit_normal, logsnr and qinglong_flux.", saved=Saved.ALWAYS, draws=True
    )
    logit_std: float = option(
        1.0, Number(), "For logit_normal, logsnr and qinglong_flux.", saved=Saved.ALWAYS, draws=True
    )
    mode_scale: float = option(1.29, Number(-math.inf), "For mode.", saved=Saved.ALWAYS, draws=True)
    min_snr_gamma: float = option(
        0.0,
        Number(),
        "Of SDXL and Stable Diffusion 1.x/2.x: steps of little noise weigh less, above this ratio of signal to noise. "
        "0: all weigh the same. 5 is usual.",
        saved=Saved.IF_SET,
        draws=True,
        graph=False,
    )
    noise_scale_start: float = option(
        0.0,
        Number(),
        "Of HiDream-O1: how many times as large the noise is as a normal one, at the noise. 0: as the model's sampler "
        "has it, 8; Musubi has 7.5 for the dev model.",
        saved=Saved.IF_SET,
        draws=True,
        graph=False,
    )
    noise_scale_end: float = option(
        0.0,
        Number(),
        "The same at the data; between the two it changes with the timestep. 0: as noise_scale_start.",
        saved=Saved.IF_SET,
        draws=True,
        graph=False,
    )
    noise_clip_std: float = option(
        0.0,
        Number(),
        "Of HiDream-O1: noise is clipped at so many of its standard deviations. 0: not at all; Musubi has 2.5 for the "
        "dev model.",
        saved=Saved.IF_SET,
        draws=True,
        graph=False,
    )
    min_timestep: float = option(0.0, Number(0, 1000), "Timesteps below are not trained, of 1000.", draws=True)
    max_timestep: float = option(1000.0, Number(0, 1000), "Timesteps above are not trained, of 1000.", draws=True)
    preserve_distribution_shape: bool = option(
        False,
        Truth(),
        "Draw again what lies outside of min and max_timestep, instead of squeezing all between them.",
        draws=True,
    )
    timestep_boundary: float = option(
        0.0,
        Number(0, 1000),
        "With Wan 2.2's two models: from which timestep of 1000 on the one for high noise is trained; up to 1: as a "
        "part. 0: 875, or 900 for image to video.",
        saved=Saved.IF_SET,
        draws=True,
        graph=False,
    )

    num_timestep_buckets: int = option(
        0,
        Whole(0),
        "Above 1: in each so many items in a row every part of the distribution of timesteps comes once, for small "
        "datasets. Musubi deals them for an epoch, and not to sigma.",
        saved=Saved.IF_SET,
        draws=True,
        since=2,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_timestep >= self.max_timestep:
            raise TrainError(
                f"min_timestep is {self.min_timestep:g}, expected less than max_timestep, {self.max_timestep:g}"
            )


def resolve_sampling(options: NoiseOptions, trained: TrainedFamily) -> NoiseOptions:
    """`options` with `auto` replaced by what Musubi's page on the family says."""
    if options.timestep_sampling != "auto":
        return options
    changes: dict[str, Any] = {"timestep_sampling": trained.sampling, "discrete_flow_shift": trained.shift}
    return dataclasses.replace(options, **changes)


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
    if options.timestep_sampling not in _MIXTURES:
        return _drawn(options, options.timestep_sampling, size, source)
    most, first, second = _MIXTURES[options.timestep_sampling]
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
