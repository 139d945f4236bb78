"""Wan 2.2's two models: one network is trained over both, each at the timesteps at which it samples.

The one for high noise is used from a boundary on, the other below it. As in Musubi Tuner all of a batch lies on one
side, that of its first item's timestep: so one of the two computes at a time, and the other can wait elsewhere.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import TrainError
from ..model import Model
from .image_inputs import image_input
from .network_options import NetworkOptions
from .noise import NoiseOptions
from .targets import choose_targets

__all__ = ["at_high_noise", "one_side", "require_pair", "resolve_boundary", "validation_times"]

logger = logging.getLogger("lyco")

_FAMILY = "wan"
"""Id of the one architecture that has two models."""

_BOUNDARIES = {"concat_latent_image": 900.0}
"""What a model reads beside the noise -> its own boundary, of 1000. Wan's configurations."""

_BOUNDARY = 875.0

_MOST = 2**16
"""Timesteps that are drawn at once at most, where few lie on the side that is wanted."""

_TRIES = 256


def require_pair(low: Model, high: Model, options: NetworkOptions) -> None:
    """Raise `TrainError` unless one network can be trained over both models, `low` for low noise."""
    mine, theirs = (weights.architecture for weights in (low, high))
    if theirs is not mine:
        title = theirs.title if theirs else "of no known family"
        raise TrainError(f"the model for high noise is {title}, the other is {mine.title if mine else 'unknown'}")
    if mine is None or mine.id != _FAMILY:
        title = mine.title if mine else "a model of no known family"
        raise TrainError(f"two models are what Wan 2.2 has, and this is {title}; leave out the one for high noise")
    images = [image_input(weights) for weights in (low, high)]
    if images[0] != images[1]:
        reads = " and ".join(image or "no image" for image in images)
        raise TrainError(
            f"the two models read {reads} beside the noise (low, high noise); take both for text to video, or both for "
            "image to video"
        )
    read = [weights.shapes.get(f"{weights.prefix}patch_embedding.weight", (0, 0))[1] for weights in (low, high)]
    if read[0] != read[1]:
        raise TrainError(
            f"the two models read {read[0]} and {read[1]} channels (low, high noise), as image to video and "
            "Fun-Control do; take the two of one release"
        )
    if "diffusers" in (low.layout, high.layout):  # which ComfyUI joins and renames as it loads them
        return
    shapes = [
        {(t.module_path, t.rows): t.shape for t in choose_targets(weights, options).targets} for weights in (low, high)
    ]
    differing = sorted(
        place for place in shapes[0].keys() | shapes[1].keys() if shapes[0].get(place) != shapes[1].get(place)
    )
    if differing:
        path = differing[0][0]
        found = [shape.get(differing[0]) for shape in shapes]
        raise TrainError(
            f"{len(differing)} modules differ between the two models ({path}: low noise {_shape(found[0])}, high noise "
            f"{_shape(found[1])}); take the two of one release"
        )


def _shape(shape: tuple[int, int] | None) -> str:
    return str(list(shape)) if shape else "none"


def resolve_boundary(options: NoiseOptions, low: Model, *, two: bool) -> NoiseOptions:
    """`options` with the boundary in thousandths that a training of `low` and another model has; 0 for one model.

    Raises:
        TrainError: one of the two would never be trained.
    """
    asked = options.timestep_boundary
    if not two:
        if asked:
            logger.warning("timestep_boundary has no use without a second model, that for high noise")
        return dataclasses.replace(options, timestep_boundary=0.0)
    if options.num_timestep_buckets > 1:
        raise TrainError(
            f"num_timestep_buckets is {options.num_timestep_buckets}, and with two models the timesteps of a batch are "
            "those of one of the two, in no such order; leave num_timestep_buckets out"
        )
    boundary = (asked * 1000 if asked <= 1 else asked) or _BOUNDARIES.get(image_input(low) or "", _BOUNDARY)
    if not options.min_timestep < boundary < options.max_timestep:
        which = "high" if boundary >= options.max_timestep else "low"
        raise TrainError(
            f"timesteps from {options.min_timestep:g} to {options.max_timestep:g} are all on one side of "
            f"timestep_boundary, {boundary:g}, so that the model for {which} noise would never be trained; widen "
            "min_timestep and max_timestep, or give the other model alone"
        )
    return dataclasses.replace(options, timestep_boundary=boundary)


def at_high_noise(t: Tensor, boundary: float) -> Tensor:
    """Of each timestep from 0 to 1, whether the model for high noise has it; `boundary` is in thousandths."""
    return t >= boundary / 1000


def one_side(draw: Callable[[int], Tensor], count: int, boundary: float) -> Tensor:
    """`count` timesteps on the side of the boundary on which the first one that is drawn lies; with none, of 0, any.

    Raises:
        TrainError: hardly any lies there.
    """
    t = draw(count)
    if not boundary:
        return t
    high = bool(at_high_noise(t[0], boundary))
    kept = t[at_high_noise(t, boundary) == high]
    many = count
    for _ in range(_TRIES):
        if len(kept) >= count:
            return kept[:count]
        many = min(2 * many, _MOST)
        t = draw(many)
        kept = torch.cat([kept, t[at_high_noise(t, boundary) == high]])
    raise TrainError(
        f"of millions of timesteps {len(kept)} lie {'above' if high else 'below'} timestep_boundary, {boundary:g}, and "
        f"a batch needs {count}; set batch_size to 1, or draw the timesteps in another way"
    )


def validation_times(times: Sequence[float], boundary: float) -> Sequence[float]:
    """The timesteps at which validation items are tried: one more where none of them is for high noise."""
    b = boundary / 1000
    return (*times, (1 + b) / 2) if b and max(times) < b else times
