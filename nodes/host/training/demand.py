"""What a training takes on the device beside the model, before it is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ....lyco_core.architectures import TrainedFamily
from ....lyco_core.errors import TrainError
from ....lyco_core.train.estimate import adapter_parts
from ....lyco_core.train.items import Item
from ....lyco_core.train.network import Network
from ....lyco_core.train.options import TrainOptions
from ..protocols import BaseModel


@dataclasses.dataclass(frozen=True)
class Demand:
    """What is needed for the largest batch."""

    tokens: int = 0
    """Of all its items."""
    checkpointing: bool = True
    parts: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    """`Estimate`'s adapter, gradients and optimizer."""


def demand_of(
    model: BaseModel, items: Sequence[Item], network: Network, options: TrainOptions, processes: int
) -> Demand:
    """The demand of a training with these items."""
    patch = _patch(model)
    tokens = max(_tokens(item, patch) * -(-(item.batch_size or options.run.batch_size) // processes) for item in items)
    return Demand(tokens, options.run.gradient_checkpointing, adapter_parts(network.parameters(), options))


def _patch(model: BaseModel) -> tuple[int, ...]:
    """How many numbers of a latent, along each of its last dimensions, a token is made of."""
    found: Any = getattr(model.diffusion_model, "patch_size", 2)
    return (1, found, found) if isinstance(found, int) else tuple(found)


def _tokens(item: Item, patch: tuple[int, ...]) -> int:
    """Those of an item's latent, its caption and the pictures that come with it."""
    text, more = item.condition
    pictures = [item.latent, *(_channels_first(picture[0]) for picture in more.get("reference_latents") or ())]
    return text.shape[1] + sum(_count(picture, patch) for picture in pictures)


def _channels_first(picture: Tensor) -> Tensor:
    """A latent as it is; an image, which HiDream-O1 reads for one, with its colors where a latent's channels are."""
    return picture.movedim(-1, 0) if picture.shape[-1] == 3 else picture


def require_whole_tokens(trained: TrainedFamily, name: str, size: Sequence[int]) -> None:
    """Raise `TrainError` for a picture, (…, height, width), that a model of pixels cannot cut into its tokens."""
    side = trained.steps[0]
    if trained.clip_type == "" and any(length % side for length in size[-2:]):
        raise TrainError(
            f"{name}: is {size[-1]} x {size[-2]} pixels, and the model takes multiples of {side}; scale or crop it, or "
            "take it from a Training Dataset, which does"
        )


def _count(latent: Tensor, patch: tuple[int, ...]) -> int:
    count = 1
    for size, part in zip(reversed(latent.shape[1:]), reversed(patch), strict=False):
        count *= -(-size // part)
    return count
