"""DoRA, weight-decomposed adaptation (arXiv:2402.09353), on a LoRA, LoHa or LoKr:
W' = magnitude * (W + ΔW) / ‖W + ΔW‖, norms and magnitude along one axis; with `by_base`, / ‖W‖."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import AdapterError
from .additive import Additive
from .base import Adapter, compute_dtype
from .lora import cut
from .on_base import OnBase, along

__all__ = ["DoRA", "bare"]


@dataclasses.dataclass(frozen=True, eq=False)
class DoRA(OnBase):
    """An adapter and the norms that the changed weight is to have.

    axis 0: a magnitude for each of the rows, (out, 1, …): LyCORIS since 3.2, PEFT, ai-toolkit.
    axis 1: for each input channel, (1, in, 1, …): LyCORIS before, and OneTrainer.
    by_base: the magnitudes are made to be divided by ‖W‖, as ComfyUI's own loader does for rows, not by ‖W + ΔW‖.
    """

    inner: Additive
    magnitude: Tensor
    axis: int
    by_base: bool = False

    def check(self) -> None:
        out, width = self.flat_shape
        size, shape = self.magnitude.numel(), list(self.magnitude.shape)
        # Flat factors of a convolution do not tell kernel positions from channels: the magnitude does.
        if not size or (size != out if self.axis == 0 else width % size):
            raise AdapterError(
                f"its DoRA magnitude has shape {shape}, expected {out} numbers for the rows, or one for each input, of "
                f"a weight of {list(self.shape)}; the file is damaged"
            )

    @classmethod
    def of(cls, inner: Additive, magnitude: Tensor, *, on_output: bool | None = None, by_base: bool = False) -> DoRA:
        """A DoRA whose axis follows from the magnitude's shape, unless `on_output` says it: axis 0 if True.

        by_base: see the class; along the inputs it counts for nothing, where ComfyUI's norm is ‖W + ΔW‖ too.

        Raises:
            AdapterError: the magnitude is neither one number a row nor one an input channel.
        """
        if on_output is None:
            on_output = magnitude.dim() < 2 or magnitude.shape[0] == inner.shape[0] == magnitude.numel()
        axis = 0 if on_output else 1
        plain = [1] * len(inner.shape)
        plain[axis] = -1
        return cls(inner, magnitude.reshape(plain), axis, by_base and axis == 0, alpha=inner.alpha)

    def on(self, inner: Adapter) -> DoRA:
        """A copy with these magnitudes on another adapter."""
        assert isinstance(inner, Additive)
        return dataclasses.replace(self, inner=inner, alpha=inner.alpha)

    @property
    def algorithm(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """`lokr+dora`, say."""
        return f"{self.inner.algorithm}+dora"

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """`LoKr with DoRA`, say."""
        return f"{self.inner.title} with DoRA"

    tensor_names: ClassVar[tuple[str, ...]] = ("magnitude",)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def rank(self) -> int | None:
        return self.inner.rank

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {**self.inner.tensors, "magnitude": self.magnitude}

    @property
    def stored(self) -> dict[tuple[str, str], Tensor]:
        return {**self.inner.stored, ("dora", "magnitude"): self.magnitude}

    def with_tensors(self, tensors: dict[str, Tensor]) -> DoRA:
        mine = dict(tensors)
        magnitude = mine.pop("magnitude", self.magnitude)
        return dataclasses.replace(self, inner=self.inner.with_tensors(mine), magnitude=magnitude)

    def add_to_(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """`weight = (1 - strength) W + strength * g (W + ΔW)`, for which one tensor as large as W is made in float32.

        Also refuses a weight with more or fewer inputs than there are magnitudes.
        """
        if self.axis == 1 and self.magnitude.numel() != weight.shape[1]:
            raise AdapterError(
                f"the adapter changes a weight of {self.shape[0]} rows and {self.magnitude.numel()} inputs, "
                f"this one is {list(weight.shape)}"
            )
        self.require_fit(weight)
        if strength != 0:
            kind = compute_dtype(weight.dtype)
            whole = weight.to(kind, copy=True, memory_format=torch.contiguous_format).reshape(self.shape)
            gain = self._gain_of_(whole)
            view = self._by_channel(whole)
            view.mul_(along(gain * strength, self.axis, view))
            changed = whole.reshape(weight.shape)
            weight.copy_(changed if strength == 1 else changed.add_(weight, alpha=1 - strength))
        return weight

    def _gain_of_(self, whole: Tensor) -> Tensor:
        """g of W, float32 or float64, which becomes W + ΔW."""
        if not self.by_base:
            return self.gain(self._sums(self._by_channel(self.inner.add_to_(whole))))
        gain = self.gain(self._sums(self._by_channel(whole)))
        self.inner.add_to_(whole)
        return gain

    def change(self, base: Tensor) -> Tensor:
        """(g - 1) W + g ΔW with g = magnitude / ‖W + ΔW‖: no difference of two nearly equal weights."""
        delta = self.inner.add_to_(torch.zeros_like(base))
        view = self._by_channel(base if self.by_base else base + delta)
        gain = along(self.gain(self._sums(view)), self.axis, view)
        old, new = base.view_as(view), delta.view_as(view)
        return new.mul_(gain).addcmul_(old, gain - 1).view_as(base)

    def squares(self, band: Tensor, start: int) -> Tensor:
        """Sums of squares of W + ΔW, in `band`'s dtype: of rows start:… (axis 0), or of those rows for each input.

        band: those rows of W, (rows, …), float32 or float64; it becomes W + ΔW, unless magnitudes go by W alone.
        """
        return self._sums(self._by_channel(band if self.by_base else self.inner.add_band_(band, start)))

    def gain(self, squares: Tensor) -> Tensor:
        """magnitude / ‖W + ΔW‖, or / ‖W‖, from whole sums of squares, (rows,) or (inputs,)."""
        # eps as in LyCORIS: a row of zeros stays one.
        return self.magnitude.to(squares).flatten() / (squares.sqrt() + torch.finfo(squares.dtype).eps)

    def _by_channel(self, weight: Tensor) -> Tensor:
        """(out, channels, positions), channels being what has a magnitude by inputs."""
        channels = self.magnitude.numel() if self.axis == 1 else 1
        return weight.view(weight.shape[0], channels, -1)

    def _sums(self, view: Tensor) -> Tensor:
        dim = (1 - self.axis, 2)
        if view.device.type == "cpu":  # whose norms are less exact than its sums
            return view.square().sum(dim)
        return torch.linalg.vector_norm(view, dim=dim).square_()  # pyright: ignore[reportUnknownVariableType]

    def rows(self, start: int, stop: int) -> DoRA | None:
        """The DoRA of rows start:stop; None on the input axis, whose norms are sums over all rows."""
        if (start, stop) == (0, self.shape[0]):
            return self
        piece = cut(self.inner, start, stop)
        if self.axis == 1 or piece is None:
            return None
        return dataclasses.replace(self, inner=piece, magnitude=self.magnitude[start:stop], alpha=piece.alpha)


def bare(adapter: Adapter) -> Adapter:
    """What a DoRA sits on; any other adapter itself."""
    return adapter.inner if isinstance(adapter, DoRA) else adapter
