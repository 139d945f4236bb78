"""How long full-size conversions take, what they weigh, and the memory that they need beside the files."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import machine

RANK = 16
CASES = [
    ("hunyuan_video_1_5", "lokr", "comfyui", False),
    ("z_image", "lokr", "comfyui", False),
    ("framepack", "lokr", "comfyui", False),
    *(
        (model, kind, to, False)
        for model in ("hunyuan_video_1_5", "flux1_kontext")
        for kind in ("loha", "lora")
        for to in ("comfyui", "diffusers")
    ),
    ("flux1_kontext", "lokr", "diffusers", False),
    ("hunyuan_video", "lokr", "diffusers", False),
    ("z_image", "lokr", "diffusers", True),
]


def balanced(dimension: int) -> int:
    """The smaller of the two most equal factors, as Musubi's factor -1 splits."""
    return max(n for n in range(1, math.isqrt(dimension) + 1) if dimension % n == 0)


def make(model: str, kind: str, path: Path, rank: int = RANK) -> None:
    """A full-size file as Musubi writes it, in bfloat16."""
    import torch
    from lyco_testing.tables import targets
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for name, (rows, columns) in targets(model).items():
        prefix = "lora_unet_" + name.replace(".", "_")
        out_l, in_m = balanced(rows), balanced(columns)
        shapes = {
            "lora": {"lora_up.weight": (rows, rank), "lora_down.weight": (rank, columns)},
            "loha": {f"hada_w{n}_{x}": (rows, rank) if x == "a" else (rank, columns) for n in (1, 2) for x in "ab"},
            "lokr": {
                "lokr_w1": (out_l, in_m),
                "lokr_w2_a": (rows // out_l, rank),
                "lokr_w2_b": (rank, columns // in_m),
            },
        }[kind]
        tensors |= {f"{prefix}.{suffix}": torch.randn(shape).bfloat16() for suffix, shape in shapes.items()}
        tensors[f"{prefix}.alpha"] = torch.tensor(8.0).bfloat16()
    save_file(tensors, path, {"ss_network_module": f"networks.{kind}"})


def peak() -> int:
    """The process's peak memory in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def convert(source: str, output: str, to: str, as_lora: str) -> None:
    """One conversion in a process of its own: print its time, sizes and memory."""
    import torch

    from lyco_core.conversion import ConvertOptions, convert_file

    torch.ones(1000, 1000).bfloat16().sum(dtype=torch.float32)  # torch's threads and their buffers are not ours
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    start = time.perf_counter()
    made = convert_file(source, output, ConvertOptions(to, as_lora=as_lora == "True"))  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    sizes = [os.path.getsize(path) for path in (source, output)]
    memory = (peak() - before) / max(sizes)
    print(
        f"{seconds:6.2f} s   {sizes[0] / 1e6:8.1f} MB -> {sizes[1] / 1e6:8.1f} MB   memory {memory:4.1f} x   "
        f"{made.summary()}"
    )


def main() -> None:
    """Print every case."""
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        for model, kind, to, as_lora in CASES:
            source, output = Path(folder) / f"{model}-{kind}", Path(folder) / "out"
            if not source.exists():
                make(model, kind, source)
            print(f"{model:<18} {kind} -> {to:<9}{'as lora ' if as_lora else '        '}", end="", flush=True)
            subprocess.run([sys.executable, __file__, str(source), str(output), to, str(as_lora)], check=True)
            output.unlink()


if __name__ == "__main__":
    convert(*sys.argv[1:]) if len(sys.argv) > 1 else main()
