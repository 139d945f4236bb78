"""A training step of LoHa and LoKr against one of LoRA, on the Linears of FLUX.2-klein-4B: time and memory.

Each shape by itself, forward and backward with a gradient of the input, all sides in turn; their sum counts each shape
as often as the model has it. Attention and norms, which are alike for all, would bring the ratios nearer to 1.

What a thread keeps between steps is not in the memory: 24 MB.

    python benchmarks/step.py [--tokens 1024] [--dtype float32] [--rounds 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

from timing import extra_memory, machine

LINEARS = {
    (9216, 3072): 10, (3072, 3072): 10, (18432, 3072): 10, (3072, 9216): 10, (27648, 3072): 20, (3072, 12288): 20
}  # fmt: skip
"""(out, in) -> how many the model has."""

SIDES = {
    "LoRA, rank 32": ("lora", 32, False),
    "LoKr, rank 32": ("lokr", 32, False),
    "LoHa, rank 8": ("loha", 8, False),
    "LoHa, rank 32": ("loha", 32, False),
    "LoHa, rank 32, beside": ("loha", 32, True),
}


def steps(shape: tuple[int, int], tokens: int, dtype) -> dict[str, Callable[[], None]]:
    """Name -> a step of the frozen Linear with that adapter."""
    import torch

    from lyco_core.train.frozen import Frozen, own_weight
    from lyco_core.train.network import _Addition
    from lyco_core.train.network_options import NetworkOptions
    from lyco_core.train.trainable import TRAINABLES

    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Linear(shape[1], shape[0], bias=False).requires_grad_(False).to(dtype)
    x = torch.randn(1, tokens, shape[1], generator=generator).to(dtype).requires_grad_()
    grad = torch.randn(1, tokens, shape[0], generator=generator).to(dtype)
    frozen = Frozen(module, module.forward, own_weight)

    def side(algorithm: str, rank: int, bypass: bool) -> Callable[[], None]:
        options = NetworkOptions(algorithm, rank, float(rank), bypass_mode=bypass)
        trainable = TRAINABLES[algorithm].initial(shape, options, generator)
        for parameter in trainable.parameters():
            torch.nn.init.normal_(parameter, std=0.02, generator=generator)
        addition = _Addition([(None, trainable)])

        def step() -> None:
            x.grad = None
            addition.forward(frozen, x).backward(grad)

        return step

    return {name: side(*said) for name, said in SIDES.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    import torch

    print(machine())
    print(f"{asked.dtype}, {asked.tokens} tokens; processor time of a step in ms, over LoRA's; height of memory in MB")
    totals = dict.fromkeys(SIDES, 0.0)
    for shape, count in LINEARS.items():
        sides = steps(shape, asked.tokens, getattr(torch, asked.dtype))
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(asked.rounds + 1):
            for name, step in sides.items():
                start = time.process_time()
                step()
                if number:
                    times[name].append(1000 * (time.process_time() - start))
        found = {name: median(values) for name, values in times.items()}
        for name, milliseconds in found.items():
            totals[name] += count * milliseconds
            ratio = milliseconds / found["LoRA, rank 32"]
            height = extra_memory(sides[name])
            print(f"{shape!s:14} x {count}: {name:22} {milliseconds:8.1f} {ratio:6.3f} {height:7.0f}", flush=True)
    for name, total in totals.items():
        print(f"all of the model: {name:22} {total / totals['LoRA, rank 32']:.3f} of LoRA's step")


if __name__ == "__main__":
    main()
