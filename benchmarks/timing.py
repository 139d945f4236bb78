"""Timing for the benchmarks: sides take turns, and the machine is named."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests" / "support")) if path not in sys.path]


def alternate(sides: dict[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Median milliseconds of each side; they take turns, so that a busy moment hits them all."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def machine() -> str:
    """The processor, its cores, and torch's version and threads."""
    import torch

    return f"{processor()}; torch {torch.__version__}, {torch.get_num_threads()} threads"


def processor() -> str:
    """The processor and its cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        name = f"{models[0]}, {len(models)} cores" if models else name
    return name


def extra_memory(run: Callable[[], object]) -> float:
    """MB of tensors that `run` holds at once at its height, told by torch's own allocator events."""
    from torch.profiler import ProfilerActivity, profile

    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    held = height = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            height = max(height, held)
    return height / 1e6
