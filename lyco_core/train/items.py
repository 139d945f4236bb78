"""What a training learns from: latents and their conditioning."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

__all__ = ["Item"]


@dataclasses.dataclass(frozen=True)
class Item:
    """One latent with its caption's conditioning."""

    latent: Tensor
    """(C, H, W) or (C, F, H, W), as the VAE gives it."""
    condition: Any
    """The conditioning of its caption, in the host's own form; the loop only passes it on."""
    name: str = ""
    """What errors call it."""
    repeats: int = 1
    """How often it comes in an epoch."""
    batch_size: int | None = None
    """That of its dataset; None: the training's own."""
    dropped: Any = None
    """What stands in for `condition` where the caption is dropped; None: the condition of the empty caption."""
