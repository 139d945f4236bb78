"""The options of a training's noise: which timesteps of the flow are drawn, and what their losses count."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..architectures import TrainedFamily
from ..errors import TrainError
from .option import OptionGroup, Saved, option
from .rules import Choice, Number, Truth, Whole
from .timesteps import MIXTURES, SAMPLINGS

__all__ = ["NoiseOptions", "resolve_sampling"]


@dataclasses.dataclass(frozen=True)
class NoiseOptions(OptionGroup):
    """How the timesteps are drawn and their losses weighted."""

    timestep_sampling: str = option(
        "sigma",
        Choice(("auto", *SAMPLINGS, *MIXTURES)),
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
