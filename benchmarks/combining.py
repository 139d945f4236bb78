"""Combining two adapters of full size into one: time, sizes, and memory beyond that of `import torch` and the package.

python benchmarks/combining.py [folder]     # where the files, 2 GB, are made, or are from the last time
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from converting import make, peak
from timing import machine

STRENGTHS = 0.7, 0.4
"""What scales by them does not stay bfloat16: the result is float32, the largest there is."""

CASES: list[tuple[str, str, int, dict[str, int]]] = [
    ("wan21_t2v_1_3b", "lora", 32, {}),
    ("wan21_t2v_14b", "lora", 32, {}),
    ("wan21_t2v_14b", "lora", 64, {}),
    ("wan21_t2v_1_3b", "lokr", 32, {"rank": 32}),
]
"""Model, algorithm, rank of the files; what is asked for."""


def combine(output: str, options: str, *files: str) -> None:
    """One combination in a process of its own: print its time, sizes and memory."""
    import torch

    import lyco_core as lyco
    import lyco_core.combining

    torch.ones(1000, 1000).bfloat16().sum(dtype=torch.float32)  # torch's threads and their buffers are not ours
    before, start = peak(), time.perf_counter()
    made = lyco.combine(dict(zip(files, STRENGTHS, strict=True)), output, **json.loads(options))
    seconds = time.perf_counter() - start
    read, written = sum(map(os.path.getsize, files)) / 1e6, os.path.getsize(output) / 1e6
    memory = (peak() - before) / 1e6
    print(f"{seconds:6.2f} s   {read:6.1f} MB -> {written:6.1f} MB   memory {memory:4.0f} MB   {made.lines()[2]}")


def main(folder: Path) -> None:
    """Print every case."""
    print(machine())
    for model, kind, rank, options in CASES:
        files = [folder / f"{model}-{kind}-{rank}-{n}.safetensors" for n in (1, 2)]
        for path in files:
            if not path.exists():
                make(model, kind, path, rank)
        asked = " to ".join([f"{kind} of rank {rank}", *(f"rank {n}" for n in options.values())])
        print(f"{model:<15} {asked:<26}", end="", flush=True)
        output = folder / "out.safetensors"
        words = [sys.executable, __file__, "--one", str(output), json.dumps(options), *map(str, files)]
        try:
            subprocess.run(words, check=True)
        finally:
            output.unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        combine(*sys.argv[2:])
    elif sys.argv[1:]:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as new:
            main(Path(new))
