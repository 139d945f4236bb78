"""`show_timesteps`: how often each timestep is drawn and how much it counts, as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..architectures import ARCHITECTURES
from ..errors import TrainError
from .draws import draw
from .noise import resolve_sampling
from .options import TrainOptions
from .timesteps import loss_weights

__all__ = ["timestep_words"]

_TRIES, _AT_ONCE = 100, 1000
_LINE, _WIDTH = 25, 64
"""Timesteps a line, and how long a bar is at most: as in Musubi Tuner."""
_SIZE = torch.Size((1, 128, 128))
"""Latents of 1024 x 1024 pixels, of those that have 8 a number."""
_SMALL = torch.Size((1, 64, 64))
"""The same of those that have 16."""


def timestep_words(options: TrainOptions, families: Sequence[str] = ()) -> list[str]:
    """The lines of two tables. `families`: ids of the architectures of the script that is named, for `auto`.

    Raises `TrainError` where `auto` is of no known family.
    """
    options = _resolved(options, families)
    size = _SMALL if options.noise.timestep_sampling in ("flux2_shift", "ideogram4_shift") else _SIZE
    drawn = [draw(options, n, _AT_ONCE, size, n * _AT_ONCE).t for n in range(_TRIES)]
    counts = torch.histc(torch.cat(drawn) * 1000, 1000 // _LINE, 0, 1000)
    # The middle of each of 1000 timesteps, on whose grid sigma's weights lie at the end.
    offset = 1.0 if options.noise.timestep_sampling == "sigma" else 0.0
    weights = loss_weights(options.noise, (torch.arange(1000) + offset) / 1000).view(-1, _LINE).mean(1)
    noise = options.noise
    head = f"timestep_sampling {noise.timestep_sampling}, {_TRIES * _AT_ONCE} timesteps drawn for 1024 x 1024 pixels"
    return [
        f"{head}:",
        *_bars(counts, "{:8.2%}", float(counts.sum())),
        f"weighting_scheme {noise.weighting_scheme}, what a loss counts:",
        *_bars(weights, "{:8.2f}", 1.0),
    ]


def _resolved(options: TrainOptions, families: Sequence[str]) -> TrainOptions:
    if options.noise.timestep_sampling != "auto":
        return options
    trained = next((found for name in families if (found := ARCHITECTURES[name].training)), None)
    if trained is None:
        raise TrainError(
            "timestep_sampling is auto, which depends on the model's family; for show_timesteps name Musubi's script "
            "of the family, or another timestep_sampling"
        )
    return dataclasses.replace(options, noise=resolve_sampling(options.noise, trained))


def _bars(values: Tensor, form: str, unit: float) -> list[str]:
    most, lines = float(values.max()), list[str]()
    for n, value in enumerate(map(float, values)):
        told, bar = form.format(value / unit), "#" * int(value / most * _WIDTH)
        lines.append(f"{n * _LINE:4}-{(n + 1) * _LINE - 1:3}: {told} {bar}".rstrip())
    return lines
