"""float16's loss scale: so that small gradients do not vanish in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

__all__ = ["LossScale"]

_GROW_AFTER = 2000
"""After so many steps in a row with finite gradients the scale doubles, as in torch's GradScaler."""


class LossScale:
    """The rule of torch's GradScaler, whose state it reads and writes.

    That one has moved within torch, and needs float64, which MPS does not have. The scale is a power
    of two, so float32 gradients are divided by it exactly.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.value = 2.0**16 if enabled else 1.0
        self._tracker = 0

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss times the scale: what the backward pass begins from."""
        return loss * self.value if self.enabled else loss

    def unscale(self, gradients: Iterable[Tensor]) -> None:
        """Divide gradients by the scale, in place."""
        if self.enabled:
            for gradient in gradients:
                gradient.mul_(1 / self.value)

    def update(self, norm: float) -> None:
        """Halve the scale if the gradients' norm is not finite, double it once it has long been finite."""
        if not self.enabled:
            return
        self._tracker = self._tracker + 1 if math.isfinite(norm) else 0
        if not self._tracker:
            self.value /= 2
        elif self._tracker == _GROW_AFTER:
            self.value, self._tracker = self.value * 2, 0

    def state_dict(self) -> dict[str, Any]:
        """What GradScaler's state would be; empty where there is no scaling."""
        if not self.enabled:
            return {}
        fixed = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": _GROW_AFTER}
        return {"scale": self.value, **fixed, "_growth_tracker": self._tracker}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        if self.enabled:
            self.value, self._tracker = float(state["scale"]), int(state["_growth_tracker"])
