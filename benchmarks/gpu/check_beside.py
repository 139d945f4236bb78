"""Adapters beside the weights of torch's own modules: numbers, CUDA graphs, two streams."""

from __future__ import annotations

import torch
from lyco_testing.zoo import normal
from torch import Tensor, nn

from gpu.check_patching import STRENGTH, Form, forms
from gpu.comfyui import ComfyUI
from gpu.device import Device
from gpu.exactness import DTYPES, beside_noise, identical, named, relative
from gpu.forms import adapters
from gpu.results import Results
from lyco_core.adapters import Adapter
from lyco_core.beside import Change, Part, Seat

TOKENS = 64
BESIDE, GRAPHS, STREAMS = "beside a weight", "CUDA graphs", "two streams"


def module_of(weight: Tensor, device: torch.device) -> nn.Linear | nn.Conv2d:
    """A module of this weight, and a bias, there."""
    out, width, *kernel = weight.shape
    made = nn.Conv2d(width, out, tuple(kernel), padding=kernel[0] // 2) if kernel else nn.Linear(width, out)
    made.weight.data, made.bias.data = weight, normal(out).to(weight.dtype)
    return made.to(device).requires_grad_(False)


def seated(module: nn.Linear | nn.Conv2d, *changes: Adapter) -> Seat:
    """The module with adapters beside its weight."""
    seat = Seat.of("module", module)
    held = seat.with_change(seat, Change(tuple(Part(adapter, STRENGTH) for adapter in changes)))
    seat.put(held, seat.settle(held))
    return seat


@torch.no_grad()
def run(device: Device, results: Results, _: ComfyUI | None) -> None:
    """All of it, as far as the device has it."""
    small = {f"{name}, {named(dtype)}": (form, dtype) for name, form in forms().items() for dtype in DTYPES}
    for case, (form, dtype) in results.in_time(BESIDE, small):
        with results.case(BESIDE, case):
            _form(device, results, case, form, dtype)
    size = device.size // 2
    large = {
        f"{name} of {size} x {size}, {named(d)}": (a, d) for name, a in adapters(size, size).items() for d in DTYPES
    }
    for case, (adapter, dtype) in results.in_time(BESIDE, large):
        with results.case(BESIDE, case):
            form = Form(adapter, lambda w, a=adapter: a.add_to_(w), (size, size))
            _form(device, results, case, form, dtype)
    if not device.is_cuda:
        results.say(f"{GRAPHS} and {STREAMS}: not checked, the device is {device.kind}")
        return
    few = adapters(1024, 1024)
    for case, adapter in results.in_time(GRAPHS, few):
        with results.case(GRAPHS, case):
            _graph(device, results, case, adapter)
    for case, adapter in results.in_time(STREAMS, few):
        with results.case(STREAMS, case):
            _streams(device, results, case, adapter)


def _form(device: Device, results: Results, case: str, form: Form, dtype: torch.dtype) -> None:
    """The output with the adapter, against the changed weight's own in float64 and in the dtype."""
    gain = normal(*form.shape)[0].numel() ** -0.5
    weight = (normal(*form.shape) * gain).to(dtype)
    x = normal(TOKENS, form.shape[1], *[5] * (len(form.shape) - 2)).to(dtype)
    whole = form.exactly(weight)
    exact = _double(module_of(weight, torch.device("cpu")), whole, x)
    noise = relative(module_of(whole.to(dtype), device.device)(x.to(device.device)), exact)
    module = module_of(weight, device.device)
    seated(module, form.adapter)
    # A sum of two rounded numbers is rounded again, each as large as it is: the base's, and what is added.
    parts = [_double(module_of(weight, torch.device("cpu")), w, x).norm() for w in (weight.double(), whole - weight)]
    larger = float(sum(parts) / exact.norm())
    beside_noise(results, BESIDE, case, relative(module(x.to(device.device)), exact), noise * max(1.0, larger))


def _double(module: nn.Linear | nn.Conv2d, weight: Tensor, x: Tensor) -> Tensor:
    """What the module gives with another weight, in float64."""
    bias = module.bias.double()
    if isinstance(module, nn.Linear):
        return nn.functional.linear(x.double(), weight, bias)
    return nn.functional.conv2d(x.double(), weight, bias, padding=module.padding)


def _prepared(device: Device, adapter: Adapter) -> tuple[nn.Linear | nn.Conv2d, list[Tensor]]:
    """A Linear in half precision with an adapter of factors on the CPU, and two inputs."""
    weight = (normal(*adapter.shape) / adapter.shape[1] ** 0.5).to(device.half)
    module = module_of(weight, device.device)
    seated(module, adapter)
    return module, [device.normal(TOKENS, adapter.shape[1], dtype=device.half, seed=n) for n in (1, 2)]


def _graph(device: Device, results: Results, case: str, adapter: Adapter) -> None:
    """A graph that was recorded with one input, replayed with another."""
    module, (x, other) = _prepared(device, adapter)
    expected = module(other)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            module(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph, place = torch.cuda.CUDAGraph(), x.clone()
    with torch.cuda.graph(graph):
        output = module(place)
    place.copy_(other)
    graph.replay()
    device.wait()
    identical(results, GRAPHS, case, output, expected)


def _streams(device: Device, results: Results, case: str, adapter: Adapter) -> None:
    """Two streams that know nothing of each other, from the very first call on."""
    module, inputs = _prepared(device, adapter)
    expected = [module(x) for x in inputs]
    module, _ = _prepared(device, adapter)
    device.wait()
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    found: list[list[Tensor]] = [[], []]
    for _ in range(20):
        for stream, x, outputs in zip(streams, inputs, found, strict=True):
            with torch.cuda.stream(stream):
                outputs.append(module(x))
    device.wait()
    for number, (outputs, one) in enumerate(zip(found, expected, strict=True), 1):
        wrong = sum(not torch.equal(output, one) for output in outputs)
        results.holds(STREAMS, f"{case}, stream {number}", not wrong, "20 equal outputs", f"{wrong} of 20 differ")
