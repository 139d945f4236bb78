"""One module of all that change it: in the form that is wanted, and measured where that is not exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..adapter_writer import stored_as
from ..adapters import Adapter, Additive, Full, LoKr, LoRA, OnBase, bare, lora_rank, to_loha, to_lora
from ..approximate.lora import best_lora
from ..approximate.nearest import NEAREST
from ..approximate.options import ExtractOptions, RankTooSmall
from ..approximate.report import Measured
from ..errors import AdapterError, LycoError, PlacementError, Remedy
from ..quantized.rounding import generator_for
from . import methods
from .average import mean_of_factors
from .base import Base
from .exact import cancels, summed, total
from .knots import knots
from .options import CombineOptions
from .result import Combined
from .sources import Opened

__all__ = ["Modules"]


class Modules:
    """The modules of the result, made one at a time."""

    def __init__(
        self, opened: Sequence[Opened], options: CombineOptions, base: Base | None, *, on_factors: bool
    ) -> None:
        self._opened, self._options, self._base, self._on_factors = opened, options, base, on_factors
        self._shares = [one.strength for one in opened]
        self.paths = list(dict.fromkeys(path for one in opened for path in one.paths))
        """Everything that any of the files changes, in the result's layout."""
        as_they_are = options.form is None and options.to in (None, "comfyui")
        self._dense = options.nearest is not None or as_they_are  # of a high rank a matrix is the quickest way

    def make(self, path: str) -> Combined | None:
        """The module as it will be stored; None where the strengths leave nothing of it.

        Raises:
            RankTooSmall: the largest error needs a larger rank than is allowed.
            LycoError: it cannot be combined so.
        """
        having = [one for one in self._opened if path in one.changes or path in one.encoders]
        if self._on_factors and (mean := self._averaged(path, having)) is not None:
            return Combined(path, stored_as(mean, self._options.dtype, path), len(having), averaged=True)
        try:
            if any(one.on_base(path) is not None for one in having):
                return self._on_base(path, having)
            parts = [(one, adapter) for one in having if isinstance(adapter := one.exact(path)[0], Additive)]
            if self._options.method == "sum":
                exact = summed([part for _, part in parts], dense=self._dense)
                return None if cancels(exact) else self._formed(path, exact, len(having))
            return self._merged(path, [part for _, part in parts], having)
        except RankTooSmall:
            raise
        except AdapterError as error:
            raise error if error.file else error.within(path) from None

    def _averaged(self, path: str, having: Sequence[Opened]) -> Adapter | None:
        """The average of the factors, if all files have them in one form."""
        if len(having) < len(self._opened) or any(one.strengths(path) - {one.strength} for one in having):
            return None
        adapters = [dataclasses.replace(one, strength=1.0).exact(path)[0] for one in having]
        return mean_of_factors(adapters, self._shares)

    def _on_base(self, path: str, having: Sequence[Opened]) -> Combined | None:
        """A module that DoRA or its like changes: as it is where nothing else does, else from the base's weight."""
        options = self._options
        alone = len(having) == 1 and having[0].strengths(path) == {1.0}
        if self._base is None and alone and options.method == "sum" and options.form is None:
            return Combined(path, stored_as(having[0].exact(path)[0], None, path), 1)
        if self._base is None:
            one, found = next((one, a) for one in having if (a := one.on_base(path)) is not None)
            raise PlacementError(
                f"{one.name}: {path}: is {found.title}, whose change depends on the weight, so it adds up with others, "
                "or has another strength, only there",
                Remedy.BASE,
            )
        changes = self._base.changes(path, having, together=options.method == "sum")
        if options.method == "sum":
            exact = Full(changes[0])
            return None if cancels(exact) else self._formed(path, exact, len(having))
        return self._merged(path, [Full(change) for change in changes], having)

    def _merged(self, path: str, parts: Sequence[Additive], having: Sequence[Opened]) -> Combined | None:
        """The module by one of the methods that go by single numbers."""
        options, shape = self._options, max((part.shape for part in parts), key=len)
        if options.method == "knots" and len(shape) > 1:
            exact: Additive = knots(parts, shape, options.kept)
        else:
            exact = Full(self._by_number(path, [total([part]).reshape(shape) for part in parts], having))
        return None if cancels(exact) else self._formed(path, exact, len(having))

    def _by_number(self, path: str, changes: list[Tensor], having: Sequence[Opened]) -> Tensor:
        options, kept = self._options, self._options.kept
        if options.method in ("ties", "knots"):
            return methods.ties(changes, kept)
        if options.method == "breadcrumbs":
            return methods.breadcrumbs(changes, kept, options.gamma)
        if options.method == "slerp":
            return self._between(changes, having)
        numbers = [self._opened.index(one) for one in having]
        generators = [g for n in numbers if (g := generator_for(options.seed, path, n, "cpu")) is not None]
        if options.method == "dare":
            return methods.dare(changes, kept, generators)
        return methods.della(changes, kept, options.epsilon, generators)

    def _between(self, changes: list[Tensor], having: Sequence[Opened]) -> Tensor:
        """Slerp takes the strengths for shares: the changes as they were trained, and how far to go between them."""
        shares = [one.strength for one in self._opened]
        trained = {id(one): change / one.strength for one, change in zip(having, changes, strict=True)}
        pair = [trained.get(id(one), torch.zeros_like(changes[0])) for one in self._opened]
        if len(pair) == 1:  # the other's strength is 0
            return pair[0]
        return methods.slerp(pair[0], pair[1], shares[1] / sum(shares))

    def _formed(self, path: str, exact: Additive, files: int) -> Combined:
        """The module in the form that is wanted, as it is stored."""
        options = self._options
        made, approximated = (exact, False) if len(exact.shape) < 2 else self._in_form(exact)
        dtype = options.dtype or (torch.float32 if approximated else None)
        stored = made if dtype is None else stored_as(made, dtype, path)  # whoever saves it looks at its numbers
        if not approximated and (options.dtype is None or not isinstance(bare(stored), Additive)):
            return Combined(path, stored, files)
        return Combined(path, stored, files, Measured.of(path, stored, exact))

    def _in_form(self, exact: Additive) -> tuple[Adapter, bool]:
        """The adapter, and whether it is an approximation."""
        form, nearest = self._options.form, self._options.nearest
        if form is None:
            return exact, False
        if nearest is not None and not (form == "lokr" and nearest.limits is None and isinstance(exact, LoKr)):
            return _nearest(exact, nearest), True
        made = {"lora": to_lora, "loha": to_loha}[form](exact) if form != "lokr" else exact
        if made is None or isinstance(made, OnBase):
            raise LycoError(f"{exact.title} has no exact {form}", Remedy.RANK)
        return (exact if isinstance(exact, type(made)) else made), False


def _nearest(exact: Additive, options: ExtractOptions) -> Adapter:
    """The nearest adapter; of a LoRA by its factors where its rank is low, else as any matrix."""
    if options.algorithm == "lora" and options.limits is not None:
        kept = not isinstance(exact, LoRA) or 2 * lora_rank(exact) < min(exact.flat_shape)
        return best_lora(exact if kept else Full(total([exact])), options.limits.before_rounding(options.dtype))
    return NEAREST[options.algorithm](total([exact]), options)
