"""Times of one weight of 5120 x 5120 with an adapter in it, and of one Linear with an adapter beside it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

import torch
from torch import nn

from gpu.check_beside import seated
from gpu.comfyui import ComfyUI
from gpu.device import Device
from gpu.exactness import DTYPES, named
from gpu.forms import adapters
from gpu.peers import bypassed, layers, patches, twin, versions
from gpu.results import TIMING, Results, Row
from lyco_core.fused import launch, ready


@torch.no_grad()
def run(device: Device, results: Results, comfyui: ComfyUI | None) -> None:
    """What the device can do at most, then both tables."""
    here, most = versions(results, comfyui), device.ceilings()
    copied = most.pop("copy")
    products = ", ".join(f"{tera:.3g} TFLOP/s in {dtype}" for dtype, tera in most.items())
    results.say(f"Copied: {copied:.4g} GB/s, read and written; products: {products}", "device")
    results.say(f"Compared: {', '.join(f'{who} {version}' for who, version in here.items()) or 'nobody'}", "device")
    triton = importlib.import_module("triton").__version__ if ready(device.device) else ""
    results.say(f"Weights are changed by {f'a kernel of Triton {triton}' if triton else 'kernels of torch'}", "device")
    size = device.size
    cases = {(name, dtype): adapter for dtype in DTYPES for name, adapter in adapters(size, size).items()}
    labelled = {f"{name}, {named(dtype)}": (adapter, dtype) for (name, dtype), adapter in cases.items()}
    for what, (adapter, dtype) in results.in_time(f"patching {size} x {size}", labelled):
        with results.case(TIMING, f"patching, {what}"):
            weight = device.normal(size, size, dtype=dtype)
            moved = adapter.to(device.device, None if dtype == torch.float32 else torch.bfloat16)
            theirs = {who: f for who, f in patches(moved, weight, here).items() if results.works(f"{who}, {what}", f)}
            sides = {"lyco": lambda a=moved, w=weight: a.add_to_(w, 1e-4), **theirs}
            if ready(device.device):
                sides["lyco by torch"] = lambda a=moved, w=weight: without_triton(lambda: a.add_to_(w, 1e-4))
            note = f"once read and written {2e-6 * weight.nbytes / copied:.3f} ms{launches(device, sides)}"
            table = f"Patching one weight of {size} x {size}"
            results.add(Row(table, what, device.alternate(sides), device.peaks(sides), note))
    beside(device, results, here)
    if comfyui is not None:
        beside_quantized(device, results, comfyui)


def without_triton(run: Callable[[], object]) -> None:
    """Run it as where there is no Triton."""
    devices, launch.DEVICES = launch.DEVICES, set()
    try:
        run()
    finally:
        launch.DEVICES = devices


def beside(device: Device, results: Results, here: dict[str, str]) -> None:
    """One Linear: the whole of its call, with the adapter beside the weight."""
    size, tokens = device.size, device.tokens
    plain = nn.Linear(size, size, device=device.device, dtype=device.half).requires_grad_(False)
    for what, adapter in results.in_time("beside a Linear", adapters(size, size)):
        with results.case(TIMING, f"beside a Linear, {what}"):
            own = twin(plain)
            seated(own, adapter.to(dtype=torch.bfloat16))
            x = device.normal(tokens, size, dtype=device.half)
            theirs = layers(adapter, plain, here)
            theirs = {who: m for who, m in theirs.items() if results.works(f"{who}, {what}", lambda m=m, x=x: m(x))}
            sides = {"lyco": own, **theirs, "Linear": plain}
            results.add(timed(device, f"{named(device.half)}, {what}", x, sides))


def beside_quantized(device: Device, results: Results, comfyui: ComfyUI) -> None:
    """The same on ComfyUI's own Linears, whose weights are quantized: lyco's seat, and ComfyUI's bypass."""
    from lyco_testing import quantized_models as models

    from gpu.quantized import QUANTIZED, quantized_linear, seat

    size, forms = device.size, [name for name in QUANTIZED if models.why_not(name) is None]
    if size % models.WIDTH:
        results.say(f"quantized Linears: not timed, their columns go by {models.WIDTH}")
        return
    some = {what: one for what, one in adapters(size, size).items() if not what.startswith("DoRA")}
    x = device.normal(device.tokens, size, dtype=device.half)
    for form in forms:
        cases = {f"{form}, {what}": one for what, one in some.items()}
        for what, adapter in results.in_time("beside a quantized Linear", cases):
            with results.case(TIMING, f"beside a Linear, {what}"):
                plain, own, theirs = (quantized_linear(form, size, device.half) for _ in range(3))
                seat(comfyui, own, adapter)
                sides = {"lyco": own, "Linear": plain}
                if results.works(f"ComfyUI, {what}", lambda m=theirs, a=adapter: bypassed(m, a)(x)):
                    sides["ComfyUI"] = theirs
                results.add(timed(device, what, x, sides))


def timed(device: Device, what: str, x: torch.Tensor, modules: Mapping[str, Callable[[torch.Tensor], object]]) -> Row:
    """A row of the table of Linears; what each side adds to the Linear alone."""
    sides = {who: lambda m=module: m(x) for who, module in modules.items()}
    times = device.alternate(sides)
    alone = times["Linear"] or float("nan")
    added = ", ".join(f"{who} {100 * (ms / alone - 1):+.0f} %" for who, ms in times.items() if ms and who != "Linear")
    table = f"A call of one Linear of {device.size} x {device.size}, {device.tokens} tokens, the adapter beside it"
    return Row(table, what, times, device.peaks(sides), f"to the Linear: {added}")


def launches(device: Device, sides: Mapping[str, Callable[[], object]]) -> str:
    """How many kernels each side launches, as a part of a note; nothing where that cannot be told."""
    if not device.is_cuda:
        return ""
    from torch.profiler import ProfilerActivity, profile

    counted: list[str] = []
    for who, run in sides.items():
        device.wait()
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            run()
            device.wait()
        events = found.key_averages()
        counted.append(f"{who} {sum(e.count for e in events if e.device_type == torch.autograd.DeviceType.CUDA)}")
    return f"; kernels: {', '.join(counted)}"
