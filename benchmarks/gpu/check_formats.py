"""Adapters on models of ComfyUI's own classes in every form that it stores weights in, as its nodes load them.

What is right is the same model of the numbers that the file stands for, in float32 on the device, whose weights are
changed densely, in float64 on the CPU. What a form's own arithmetic is off by, for instance because it rounds inputs to
float8, is measured on the model without an adapter.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lyco_testing import quantized_models as models
from lyco_testing.sampling import sampled
from safetensors.torch import save_file
from torch import Tensor

from gpu.comfyui import ComfyUI, widened
from gpu.device import Device
from gpu.exactness import beside_noise, identical
from gpu.results import Results

AUTO, PATCH, BESIDE = "auto", "patch the weights", "apply while sampling"
KINDS = ("dora-out", "dora-in", "oft", "boft", "ia3-in", "glora")
DEPENDED = ("int8_convrot", "fp8_scaled", "nvfp4_pre_quant")
FACTOR = 2
"""Of a form's noise: the base's and the changed model's differ, so that their difference has both."""


def run(device: Device, results: Results, comfyui: ComfyUI | None) -> None:
    """Every format with a LoKr, then three of them with each algorithm that depends on the weight."""
    assert comfyui is not None
    torch.backends.cudnn.allow_tf32 = False  # the models have a convolution
    vram = "dynamic VRAM" if comfyui.dynamic else "legacy VRAM"
    if names := widened():
        results.say(f"{', '.join(names)}: no kernels for them here; ComfyUI widens their numbers, then multiplies")
    known = models.formats()
    if missing := [name for name in models.FORMATS if name not in known]:
        results.say(f"not checked: {', '.join(missing)}: not in ComfyUI {comfyui.version}")
    with tempfile.TemporaryDirectory() as folder:
        families = ("wan",) if comfyui.dynamic or not device.is_cuda else ("wan", "z_image")
        section = f"stored formats, {vram}"
        cases = {f"{family}, {name}": (family, name) for family in families for name in known}
        for case, (family, name) in results.in_time(section, cases):
            with results.case(section, case), collected():
                _format(results, section, case, Made(comfyui, Path(folder), family, name))
        if comfyui.dynamic:  # these too are the same seats
            return
        section = "algorithms that depend on the weight"
        three = [name for name in DEPENDED if name in known][: None if device.is_cuda else 1]
        for case, (name, kind) in results.in_time(section, {f"{n}, {k}": (n, k) for n in three for k in KINDS}):
            with results.case(section, case), collected():
                _kind(results, section, case, Made(comfyui, Path(folder), "wan", name), kind)


class Made:
    """A tiny model's file in a format, and how adapters come onto it."""

    def __init__(self, comfyui: ComfyUI, folder: Path, family: str, name: str) -> None:
        self.host, self.loras = comfyui.part("nodes.host"), comfyui.loras
        self.family, self.name, self.dynamic = family, name, comfyui.dynamic
        self._seats = comfyui.part("nodes.host.model.beside.seat").Seats
        with plainly():
            self.file, self.numbers = models.base_file(folder, family, name)

    def load(self) -> Any:
        """The MODEL."""
        return models.load(self.family, self.file)

    def save(self, tensors: dict[str, Tensor]) -> str:
        """An adapter's file, and its name."""
        save_file(tensors, self.loras / "adapter.safetensors")
        return "adapter.safetensors"

    def onto(self, model: Any, adapter: str, mode: str) -> Any:
        """What *Load LoHa/LoKr* makes of a MODEL."""
        return self.host.load_onto(model, None, adapter, 1.0, partial=False, mode=mode).model

    def seats(self, model: Any) -> tuple[Any, ...]:
        """Those that are taken on a MODEL's modules."""
        taken = self._seats.of(model.model)
        return () if taken is None else taken.seats


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Models on the meta device are built, which those of dynamic VRAM cannot be."""
    import comfy.memory_management as memory

    with mock.patch.object(memory, "aimdo_enabled", False) if hasattr(memory, "aimdo_enabled") else mock.MagicMock():
        yield


@contextlib.contextmanager
def collected() -> Iterator[None]:
    """After it, ComfyUI holds no model."""
    import comfy.model_management as management

    try:
        yield
    finally:
        management.unload_all_models()
        gc.collect()


def norm(tensor: Tensor) -> float:
    """Its length."""
    return float(tensor.cpu().double().norm())  # not every device has float64


def _format(results: Results, section: str, case: str, made: Made) -> None:
    """A LoKr on every Linear of the blocks, by itself and beside the weights."""
    with plainly():
        tensors, changes = models.adapter(made.family)
    adapter, family = made.save(tensors), made.family
    plain = models.predict(family, models.reference(family, made.numbers)).cpu()
    change = models.predict(family, models.reference(family, made.numbers, changes)).cpu() - plain
    model = made.load()
    base = models.predict(family, model)
    noise = norm(base.cpu() - plain) / norm(change)
    for mode in (AUTO, BESIDE) if made.name in models.FLOATS else (AUTO,):
        changed = made.onto(model, adapter, mode)
        found = sampled(family, changed)
        label = f"{case}, {mode}"
        error = norm(found.cpu() - base.cpu() - change) / norm(change)
        beside_noise(results, section, label, error, noise, FACTOR)
        _all_act(results, section, label, made, changed, expected=mode == BESIDE or made.name not in models.FLOATS)
    identical(results, section, f"{case}, the model without it", models.predict(family, model), base)


def _all_act(results: Results, section: str, case: str, made: Made, model: Any, *, expected: bool) -> None:
    """That the adapters sit beside the weights where they should, and that the model calls each."""
    seats = made.seats(model)
    idle = [seat.path for seat in seats if not seat.acted]
    right = bool(seats) == expected and not idle
    words = f"{len(seats)} seats, {len(idle)} of them never called {idle[:3]}"
    results.holds(section, f"{case}, where it acts", right, f"seats: {expected}, all of them called", words)


def _kind(results: Results, section: str, case: str, made: Made, kind: str) -> None:
    """An algorithm on every Linear of the blocks; on the float32 model, it is in the weights."""
    with plainly():
        shapes = models.linears(made.family)
    tensors: dict[str, Tensor] = {}
    for path, shape in shapes.items():
        tensors |= tensors_of(kind, f"diffusion_model.{path}", *shape)
    adapter, family = made.save(tensors), made.family
    reference = models.reference(family, made.numbers)
    plain = models.predict(family, reference)
    change = models.predict(family, made.onto(reference, adapter, PATCH)) - plain
    model = made.load()
    base = models.predict(family, model)
    changed = made.onto(model, adapter, AUTO)
    error = norm(sampled(family, changed) - base - change) / norm(change)
    beside_noise(results, section, case, error, norm(base - plain) / norm(change), FACTOR)
    _all_act(results, section, case, made, changed, expected=True)
    identical(results, section, f"{case}, the model without it", models.predict(family, model), base)


def tensors_of(kind: str, path: str, out: int, width: int) -> dict[str, Tensor]:
    """What a trainer saves of a module; a change of about a tenth of the weight."""

    def normal(*shape: int) -> Tensor:
        return models.normal(sum(shape), *shape)

    lora = {"lora_up.weight": normal(out, 4) / 20, "lora_down.weight": normal(4, width) / 4}
    inputs = {"a1.weight": normal(width, 4) / 40, "a2.weight": normal(4, width) / 4}
    made = {
        "lokr": {"lokr_w1": normal(16, 16) / 16, "lokr_w2": normal(out // 16, width // 16) / 16},
        "dora-out": lora | {"dora_scale": 1 + normal(out, 1) / 10},
        "dora-in": lora | {"dora_scale": 1 + normal(1, width) / 10},
        "oft": {"oft_blocks": normal(out // 16, 16, 16) / 30},
        "boft": {"oft_blocks": normal(2, out // 16, 16, 16) / 40},
        "ia3-in": {"weight": normal(1, width) / 10, "on_input": torch.tensor(True)},
        "glora": inputs | {"b1.weight": normal(out, 4) / 40, "b2.weight": normal(4, width) / 4},
    }
    return {f"{path}.{name}": tensor.contiguous() for name, tensor in made[kind].items()}
