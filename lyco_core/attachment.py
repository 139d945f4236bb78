"""Adapters beside the weights of any torch module, for as long as they are wanted: of a diffusers pipeline's, say."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import NoReturn, cast

import torch
from torch import Tensor, nn

from .adapter_reader import read_adapter_set, require_known
from .adapter_set import AdapterSet
from .beside import Change, Part, Seat, sits_on
from .errors import LycoError, PlacementError, Remedy, about_file
from .exclusion import exclusion
from .model import Model
from .placement import Placement
from .selection import EVERYTHING, Selection
from .text import counted

__all__ = ["Attachment", "attach"]

_MULTIPLIED_ELSEWHERE = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""torch's own modules that multiply by the weights of the Linears in them without calling those."""


class Attachment:
    """Adapters that act beside the weights of a module, until `remove`, or the end of a `with`.

    The weights and the state dict stay as they are. Of several attachments to one module, each changes what those
    before it left, as patches do; they may be removed in any order.
    """

    def __init__(self, placement: Placement, changes: Mapping[Seat, Change], strength: float, left_out: str) -> None:
        self.placement = placement
        """Which adapter acts beside which weight."""
        self.left_out = left_out
        """What of the file has no place and why; empty if everything has."""
        self._changes = dict(changes)
        self._strength = 0.0
        self.strength = strength

    @property
    def strength(self) -> float:
        """1 is what was trained. Setting it holds from the next call of the module on."""
        return self._strength

    @strength.setter
    def strength(self, strength: float) -> None:
        if not math.isfinite(strength):
            raise LycoError(f"strength is {strength}, expected a finite number")
        self._hold({seat: _times(change, strength) for seat, change in self._changes.items()})
        self._strength = strength

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of the modules beside whose weights they act."""
        return tuple(seat.path for seat in self._changes)

    @property
    def idle(self) -> tuple[str, ...]:
        """Paths of the modules that no call has computed yet.

        Those that are left after a call of the model are not used by it, or passed by.
        """
        return tuple(seat.path for seat in self._changes if not seat.acted)

    def remove(self) -> None:
        """Let the modules compute as if these adapters had never been there."""
        self._hold(dict.fromkeys(self._changes))
        self._changes = {}

    def _hold(self, changes: Mapping[Seat, Change | None]) -> None:
        """Everywhere or nowhere: a change that one module refuses leaves all as they are."""
        every = {seat: seat.with_change(self, change) for seat, change in changes.items()}
        settled = {seat: seat.settle(held) for seat, held in every.items()}
        for seat, held in every.items():
            seat.put(held, settled[seat])

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        kinds = ", ".join(f"{count} {title}" for title, count in self.placement.adapter_set.titles.items())
        return f"Attachment({kinds} beside {counted(len(self._changes), 'module')}, strength {self._strength:g})"


def attach(
    module: nn.Module,
    adapters: AdapterSet | str | os.PathLike[str],
    strength: float = 1.0,
    *,
    architecture: str | None = None,
    selection: Selection = EVERYTHING,
    partial: bool = False,
) -> Attachment:
    """Let `module` compute with adapters beside its Linears and convolutions, whose weights stay as they are.

    Args:
        module: a diffusion model under diffusers', ComfyUI's or Musubi's names, or any module whose own names the
            adapters have. Its weights may be quantized: only DoRA reads them.
        adapters: a file, or what `load` gives. Of another layout than the module's, they are put where they belong.
        strength: 1 is what was trained; `Attachment.strength` changes it later.
        architecture: the model family, where names and shapes fit several.
        selection: which modules take part, and how strongly beside `strength`.
        partial: attach what has a place and tell of the rest in `Attachment.left_out`, instead of refusing.

    Raises:
        LycoError: the file is bad, or something of it has no place, or no effect beside the weight of its place.
    """
    whole = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    model = Model.of(_shapes(whole))
    in_file = isinstance(adapters, (str, os.PathLike))
    with about_file(adapters) if in_file else contextlib.nullcontext():
        found = read_adapter_set(adapters) if in_file else adapters
        if in_file or architecture is not None:
            found = model.identify(found, architecture)
        placement = model.place(found, selection)
        unseated = {p.module_path: why for p in placement.chosen() if (why := _why_not(whole, p.key))}
        kept = placement.without(unseated)
        left_out = "; ".join(filter(None, [placement.problem("the module"), _unseated(unseated, placement)]))
        if left_out and not (partial and kept.placed):
            _refuse(left_out, (*placement.left, *unseated), kept)
        if not kept.placed:
            require_known(found)
            raise PlacementError("holds nothing that changes this module")
        return Attachment(kept, _changes(whole, kept), strength, left_out)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Key -> shape of every parameter, of a Linear's weight as the module means it, however it is stored."""
    shapes = {key: tuple(parameter.shape) for key, parameter in module.named_parameters()}
    modules = cast(Iterable[tuple[str, nn.Module]], module.named_modules())
    linears = {path: (m.out_features, m.in_features) for path, m in modules if isinstance(m, nn.Linear)}
    return shapes | {f"{path}.weight" if path else "weight": shape for path, shape in linears.items()}


def _why_not(module: nn.Module, key: str) -> str:
    """Why nothing acts beside a parameter; empty if something does."""
    path, _, name = key.rpartition(".")
    owner, above = module.get_submodule(path), module.get_submodule(path.rpartition(".")[0])
    if isinstance(above, _MULTIPLIED_ELSEWHERE) and above is not owner:
        return f"{type(above).__name__} multiplies by it without calling its module"
    if name not in ("weight", "bias") or not sits_on(owner):
        grouped = "grouped " if getattr(owner, "groups", 1) != 1 else ""
        return f"the {name} of a {grouped}{type(owner).__name__}"
    return ""


def _unseated(unseated: Mapping[str, str], placement: Placement) -> str:
    if not unseated:
        return ""
    path, why = next(iter(unseated.items()))
    return (
        f"{len(unseated)} of {len(placement.adapter_set.adapters)} modules change what nothing acts beside "
        f"({path}: {why}{f' and {len(unseated) - 1} more' if len(unseated) > 1 else ''}): apply those to the weights"
    )


def _refuse(problem: str, left: Iterable[str], kept: Placement) -> NoReturn:
    names = [name for placed in kept.placed for name in kept.names[placed]]
    pattern = exclusion(left, names) if names else ""
    raise PlacementError(problem, Remedy.LEAVE_OUT if pattern else None, pattern)


def _changes(module: nn.Module, placement: Placement) -> dict[Seat, Change]:
    """What each module with a place gets, at the strengths of the selection."""
    parts: dict[str, list[Part]] = {}
    offsets: dict[str, Tensor] = {}
    for placed, share in placement.chosen().items():
        path, _, name = placed.key.rpartition(".")
        part, several = placement.filled(placed), parts.setdefault(path, [])
        if name == "weight":
            several.append(Part(part, share, placed.rows))
        else:
            part.add_to_(placed.band(offsets.setdefault(path, torch.zeros(placed.shape))), share)
    return {_seat(module, path): Change(tuple(several), offsets.get(path)) for path, several in parts.items()}


def _seat(module: nn.Module, path: str) -> Seat:
    owner = module.get_submodule(path)
    assert isinstance(owner, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return Seat.of(path, owner)


def _times(change: Change, strength: float) -> Change:
    parts = tuple(dataclasses.replace(part, strength=part.strength * strength) for part in change.parts)
    return Change(parts, None if change.offset is None or strength == 0 else change.offset * strength)
