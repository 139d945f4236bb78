"""Patching: every algorithm in every form, on the device in each dtype, against float64 on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from lyco_testing.zoo import CASES, normal
from lyco_testing.zoo_on_base import ON_BASE
from torch import Tensor

from gpu.comfyui import ComfyUI
from gpu.device import Device
from gpu.exactness import DTYPES, identical, named, rounded_once
from gpu.forms import adapters
from gpu.results import Results
from lyco_core.adapters import Adapter
from lyco_core.fused import ready

STRENGTH = 0.7


@dataclasses.dataclass(frozen=True)
class Form:
    """One form of an algorithm."""

    adapter: Adapter
    changed: Callable[[Tensor], Tensor]
    """W -> W + ΔW(W) in float64, as the papers write it."""
    shape: tuple[int, ...]

    def exactly(self, weight: Tensor) -> Tensor:
        """The changed weight in float64, at the strength of the checks."""
        wide = weight.double()
        return wide + STRENGTH * (self.changed(wide.clone()) - wide)


def forms() -> dict[str, Form]:
    """Every form that the tests have."""
    found: dict[str, Form] = {}
    for case in CASES:
        adapter = case.make()
        found[case.name] = Form(adapter, lambda w, c=case, a=adapter: w + c.dense(a), case.shape)
    for case in ON_BASE:
        adapter = case.make()
        found[case.name] = Form(adapter, lambda w, c=case, a=adapter: c.changed(a, w), case.shape)
    return found


def run(device: Device, results: Results, _: ComfyUI | None) -> None:
    """Every form, then those that people have at full size; by Triton's kernel where that is to be had."""
    by_kernel = ready(device.device)
    small = {f"{name}, {named(dtype)}": (form, dtype) for name, form in forms().items() for dtype in DTYPES}
    for case, (form, dtype) in results.in_time("patching", small):
        with results.case("patching", case):
            _rows_of_a_fused_weight(device, results, case, form, dtype)
    shape = device.size * 3 // 2, device.size * 5 // 4  # of 5120, it is more than one band
    large = {f"{name}, {named(dtype)}": (one, dtype) for name, one in adapters(*shape).items() for dtype in DTYPES}
    for case, (adapter, dtype) in results.in_time("patching, full size", large):
        with results.case("patching, full size", case):
            weight = (normal(*shape) / shape[1] ** 0.5).to(dtype)
            found = adapter.to(device.device).add_to_(weight.to(device.device, copy=True), STRENGTH)
            rounded_once(results, "patching, full size", case, found, adapter.add_to_(weight.double(), STRENGTH))
    if by_kernel:
        found = "it failed, and torch's took its place: see the warning above"
        results.holds("patching", "Triton's kernel", ready(device.device), "it compiles and runs", found)


def _rows_of_a_fused_weight(device: Device, results: Results, case: str, form: Form, dtype: torch.dtype) -> None:
    """The middle third of a weight; the others stay as they are."""
    rows = form.shape[0]
    fused = normal(3 * rows, *form.shape[1:]).to(dtype)
    middle = fused[rows : 2 * rows]
    there = fused.to(device.device, copy=True)
    form.adapter.to(device.device).add_to_(there[rows : 2 * rows], STRENGTH)
    rounded_once(results, "patching", case, there[rows : 2 * rows], form.exactly(middle))
    there[rows : 2 * rows] = middle.to(device.device)
    if not torch.equal(there.cpu(), fused):
        identical(results, "patching", f"{case}, the rows beside it", there.cpu(), fused)
