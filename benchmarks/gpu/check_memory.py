"""Adapters beside weights of which the card holds a part, or none: ComfyUI's low VRAM, legacy and dynamic."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lyco_testing import quantized_models as models
from lyco_testing.sampling import sampled

from gpu.check_formats import BESIDE, Made, collected, norm, plainly, tensors_of
from gpu.comfyui import ComfyUI
from gpu.device import Device
from gpu.results import Results

FORMATS = ("bf16", "int8_convrot", "fp8_scaled", "nvfp4_pre_quant", "convrot_w4a4")
KINDS = ("lokr", "dora-in")
LIMIT = 1e-3
"""Of the change: a weight that comes from elsewhere has the same numbers, and may be multiplied by another kernel."""


def run(device: Device, results: Results, comfyui: ComfyUI | None) -> None:
    """Each format with an adapter that adds, and one that depends on the weight."""
    import comfy.model_management as management

    assert comfyui is not None
    section = f"low VRAM, {'dynamic' if comfyui.dynamic else 'legacy'}"
    if management.get_torch_device().type in ("cpu", "mps"):
        results.say(f"{section}: not checked, the device ({device.kind}) has no memory of its own")
        return
    names = [name for name in FORMATS if models.why_not(name) is None]
    states = _dynamic_states() if comfyui.dynamic else _legacy_states()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for case, (name, kind) in results.in_time(section, {f"{n}, {k}": (n, k) for n in names for k in KINDS}):
            with results.case(section, case), collected():
                _states(results, section, case, Made(comfyui, Path(folder), "wan", name), kind, states)


Enter = Callable[[Any, Any], None]
"""Brings a MODEL, which is loaded, into a state; the device is the second argument."""


def _legacy_states() -> dict[str, Enter]:
    return {
        "half unloaded": lambda model, _: model.partially_unload(model.offload_device, model.model_size() // 2),
        "a quarter loaded": lambda model, there: model.partially_load(there, model.model_size() // 4),
        "loaded again": lambda model, there: model.partially_load(there, 1e12),
    }


def _dynamic_states() -> dict[str, Enter]:
    def never(model: Any, _: object) -> None:
        pages = model._vbar_get()
        pages.free_memory(1e15)
        pages.set_watermark_limit(0)
        pages.set_watermark(0)

    return {
        "half unloaded": lambda model, _: model.partially_unload(model.offload_device, model.model_size() // 2),
        "freed": lambda model, _: model._vbar_get().free_memory(1e15),
        "never resident": never,
    }


def _states(results: Results, section: str, case: str, made: Made, kind: str, states: dict[str, Enter]) -> None:
    """The same prediction in every state as with all weights on the card, and without the adapter as before it."""
    import comfy.model_management as management

    with plainly():
        shapes = models.linears(made.family)
    tensors = {k: t for path, s in shapes.items() for k, t in tensors_of(kind, f"diffusion_model.{path}", *s).items()}
    adapter, family, there = made.save(tensors), made.family, management.get_torch_device()
    model = made.load()
    base = models.predict(family, model)
    changed = made.onto(model, adapter, BESIDE)
    whole = sampled(family, changed)
    change = norm(whole - base)

    def same(state: str, one: Any) -> None:
        error = norm(sampled(family, one, load=False) - whole) / change
        results.at_most(section, f"{case}, {state}", error, LIMIT, "of the change from all on the card")
        seats = made.seats(one)
        acted = all(seat.acted for seat in seats)
        found = f"{len(seats)} seats, all called: {acted}"
        results.holds(
            section, f"{case}, {state}, seats", bool(seats) and acted, f"{len(shapes)} seats, all called", found
        )

    for state, enter in states.items():
        enter(changed, there)
        same(state, changed)
    management.unload_all_models()
    cold = made.onto(made.load(), adapter, BESIDE)
    if made.dynamic:
        management.load_models_gpu([cold])
    else:
        management.LoadedModel(cold).model_load(cold.model_size() // 3)
    same("a third loaded, from cold", cold)
    if made.dynamic:
        management.unload_all_models()
    else:
        cold.detach()
    error = norm(models.predict(family, model) - base) / change
    results.at_most(section, f"{case}, without the adapter again", error, 0, "of the change")
