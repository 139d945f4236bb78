"""A training step of LoHa and LoKr against one of LoRA, on the Linears of FLUX.2-klein-4B: time and memory.

Each shape by itself, forward and backward with a gradient of the input, all sides in turn; their sum counts each shape
as often as the model has it. Attention and norms, which are alike for all, would bring the ratios nearer to 1.

What a thread keeps between steps is not in the memory: 24 MB.

On a GPU the time is the wall's, of several steps in a row, and beside it that of the kernels alone: on a fast card with
few tokens Python takes longer than they do.

    python benchmarks/step.py [--tokens 1024] [--dtype float32] [--rounds 3] [--device cpu]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

from timing import extra_memory, machine

SEVERAL = 10
"""Steps in a row on a GPU."""

LINEARS = {
    (9216, 3072): 10, (3072, 3072): 10, (18432, 3072): 10, (3072, 9216): 10, (27648, 3072): 20, (3072, 12288): 20
}  # fmt: skip
"""(out, in) -> how many the model has."""

SIDES = {
    "LoRA, rank 32": ("lora", 32, False),
    "LoRA, rank 8": ("lora", 8, False),
    "LoKr, rank 8": ("lokr", 8, False),
    "LoKr, rank 32": ("lokr", 32, False),
    "LoHa, rank 8": ("loha", 8, False),
    "LoHa, rank 32": ("loha", 32, False),
    "LoHa, rank 32, beside": ("loha", 32, True),
}


def steps(shape: tuple[int, int], tokens: int, dtype, device: str) -> dict[str, Callable[[], None]]:
    """Name -> a step of the frozen Linear with that adapter."""
    import torch

    from lyco_core.train.addition import Addition
    from lyco_core.train.frozen import Frozen, own_weight
    from lyco_core.train.network_options import NetworkOptions
    from lyco_core.train.trainable import TRAINABLES

    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Linear(shape[1], shape[0], bias=False).requires_grad_(False).to(device, dtype)
    x = torch.randn(1, tokens, shape[1], generator=generator).to(device, dtype).requires_grad_()
    grad = torch.randn(1, tokens, shape[0], generator=generator).to(device, dtype)
    frozen = Frozen(module, module.forward, own_weight)

    def side(algorithm: str, rank: int, bypass: bool) -> Callable[[], None]:
        options = NetworkOptions(algorithm, rank, float(rank), bypass_mode=bypass)
        trainable = TRAINABLES[algorithm].initial(shape, options, generator)
        for parameter in trainable.parameters():
            torch.nn.init.normal_(parameter, std=0.02, generator=generator)
        addition = Addition([(None, trainable.to(device))])

        def step() -> None:
            x.grad = None
            addition.forward(frozen, x).backward(grad)

        return step

    return {name: side(*said) for name, said in SIDES.items()}


def processor_time(step: Callable[[], None]) -> float:
    """Milliseconds of the processor for a step on a CPU."""
    start = time.process_time()
    step()
    return 1000 * (time.process_time() - start)


def wall_time(step: Callable[[], None]) -> float:
    """Milliseconds of one of several steps on a GPU."""
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(SEVERAL):
        step()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / SEVERAL


def kernel_time(step: Callable[[], None]) -> float:
    """Milliseconds of a step's kernels, one after the other."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        step()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in found.key_averages()) / 1000


def gpu_memory(step: Callable[[], None]) -> float:
    """MB that a step holds on a GPU at its height, beside what is there before it."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    import torch

    gpu = asked.device.startswith("cuda")
    clocks = {"wall": wall_time, "kernels": kernel_time} if gpu else {"processor": processor_time}
    print(torch.cuda.get_device_name(asked.device) if gpu else machine())
    print(f"{asked.dtype}, {asked.tokens} tokens; {', '.join(clocks)} time of a step in ms, over LoRA's; memory in MB")
    totals = {clock: dict.fromkeys(SIDES, 0.0) for clock in clocks}
    for shape, count in LINEARS.items():
        sides = steps(shape, asked.tokens, getattr(torch, asked.dtype), asked.device)
        times = {clock: {name: list[float]() for name in sides} for clock in clocks}
        for number in range(asked.rounds + 1):
            for name, step in sides.items():
                for clock, took in clocks.items():
                    milliseconds = took(step)
                    if number:
                        times[clock][name].append(milliseconds)
        found = {clock: {name: median(values) for name, values in those.items()} for clock, those in times.items()}
        for clock, those in found.items():
            for name, milliseconds in those.items():
                totals[clock][name] += count * milliseconds
        for name, step in sides.items():
            columns = " ".join(f"{t[name]:8.2f} {t[name] / t['LoRA, rank 32']:6.3f}" for t in found.values())
            height = gpu_memory(step) if gpu else extra_memory(step)
            print(f"{shape!s:14} x {count}: {name:22} {columns} {height:7.0f}", flush=True)
    for clock, those in totals.items():
        for name, total in those.items():
            print(
                f"all of the model, {clock}: {name:22} {total:9.1f} ms, {total / those['LoRA, rank 32']:.3f} of LoRA's"
            )


if __name__ == "__main__":
    main()
