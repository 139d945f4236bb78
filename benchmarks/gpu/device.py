"""The device: waiting for it, timing on it, its memory, and what it can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from timing import processor
from torch import Tensor

Run = Callable[[], object]
LEAST_MS = 4.0
"""How long a timing should last at least, for the clock and the launches to be small beside it."""


class Device:
    """A device of torch, and what size of weights is right for it."""

    def __init__(self, name: str, size: int, share: float | None = None) -> None:
        """share: of its memory that may be used, to play a smaller card."""
        self.device = torch.device(name)
        self.kind = self.device.type
        if self.kind == "cuda":  # with a number, which some of torch's functions want; ComfyUI goes by the current one
            self.device = torch.device("cuda", self.device.index or 0)
            torch.cuda.set_device(self.device)
        self.size, self.tokens = size, size * 4 // 5
        self.half = torch.float32 if self.kind == "cpu" else torch.bfloat16
        """What models compute in here."""
        self.whole = torch.cuda.get_device_properties(self.device).total_memory if self.is_cuda else 0
        self.limit = int(self.whole * (share or 1))
        if share is not None:
            self._play(share)

    @property
    def is_cuda(self) -> bool:
        """Whether there are streams, graphs and a measure of memory."""
        return self.kind == "cuda"

    @property
    def title(self) -> str:
        """Its name for people, and what torch runs on it."""
        names = {"cuda": lambda: torch.cuda.get_device_name(self.device), "xpu": lambda: torch.xpu.get_device_name()}
        name = names.get(self.kind, lambda: f"{'Apple GPU on ' if self.kind == 'mps' else ''}{processor()}")()
        played = f", {self.limit / 2**30:.0f} GiB of it" if self.limit < self.whole else ""
        return f"{name}{played}; torch {torch.__version__}"

    def _play(self, share: float) -> None:
        """Let torch have a part of the card alone, and everybody who asks believe that this is all there is."""
        torch.cuda.set_per_process_memory_fraction(share, self.device)
        asked = torch.cuda.mem_get_info

        def mem_get_info(device: object = None) -> tuple[int, int]:
            free, whole = asked(device)
            return max(0, free - (whole - self.limit)), self.limit

        torch.cuda.mem_get_info = mem_get_info

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
        """Normal numbers on the device, the same on every one."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator).to(self.device, dtype)

    def wait(self) -> None:
        """Until all that was asked of it is done."""
        if self.kind in ("cuda", "xpu", "mps"):
            getattr(torch, self.kind).synchronize()

    def _took(self, run: Run, times: int) -> float:
        """Milliseconds of one of `times` runs in a row."""
        self.wait()
        start = time.perf_counter()
        for _ in range(times):
            run()
        self.wait()
        return 1000 * (time.perf_counter() - start) / times

    def alternate(self, sides: Mapping[str, Run], rounds: int = 7, *, once: bool = False) -> dict[str, float | None]:
        """Median milliseconds of each side; they take turns. None: it ran out of memory.

        once: they take seconds: nothing is run to warm up, nor several times in a row.
        """
        rounds = min(rounds, 3) if self.kind == "cpu" else rounds
        found: dict[str, list[float]] = {name: [] for name in sides}
        times = dict.fromkeys(sides, 1)
        for turn in range(0 if once else -2, rounds):
            for name in list(times):
                try:
                    took = self._took(sides[name], times[name])
                except torch.cuda.OutOfMemoryError:
                    del times[name]
                    self.empty()
                    continue
                if turn >= 0:
                    found[name].append(took)
                else:
                    times[name] = min(100, max(1, round(LEAST_MS / took)))
        return {name: median(found[name]) if name in times else None for name in sides}

    def peaks(self, sides: Mapping[str, Run]) -> dict[str, float]:
        """MB that each side holds at its height beside what is there before it; nothing where none can be told."""
        if not self.is_cuda:
            return {}
        found: dict[str, float] = {}
        for name, run in sides.items():
            try:
                self.wait()
                torch.cuda.reset_peak_memory_stats(self.device)
                before = torch.cuda.memory_allocated(self.device)
                run()
                self.wait()
            except torch.cuda.OutOfMemoryError:
                self.empty()
                continue
            found[name] = (torch.cuda.max_memory_allocated(self.device) - before) / 1e6
        return found

    def empty(self) -> None:
        """Give back what nobody holds."""
        if self.is_cuda:
            torch.cuda.empty_cache()

    def ceilings(self) -> dict[str, float]:
        """What it can do at most: GB/s copied (read and written), TFLOP/s of a product in each dtype."""
        side = max(2 * self.size, 4096)  # larger than any cache
        pair = torch.ones(2, side, side, device=self.device)
        copied = self.alternate({"copy": lambda: pair[0].copy_(pair[1])})["copy"] or float("nan")
        found = {"copy": 1e-6 * pair.nbytes / copied}
        for dtype in dict.fromkeys((self.half, torch.float32)):
            a, b = (self.normal(self.size, self.size, dtype=dtype, seed=n) for n in (1, 2))
            took = self.alternate({"mm": lambda a=a, b=b: a @ b})["mm"] or float("nan")
            found[str(dtype).removeprefix("torch.")] = 2e-9 * self.size**3 / took
        return found
