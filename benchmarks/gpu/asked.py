"""What a person asks for at the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
SIZES = {"cuda": 5120, "xpu": 5120, "mps": 2048}
"""Device type -> the width of weights that are timed; 512 elsewhere."""


def asked(words: Sequence[str]) -> argparse.Namespace:
    """The options; `device` and `size` are decided where they are left open."""
    parser = argparse.ArgumentParser(
        prog="make gpu ARGS=…, or python benchmarks/gpu",
        description="Checks what the pack computes on this machine's device against float64 on the CPU, then times it "
        "beside stock ComfyUI, LyCORIS and PEFT, as far as they are installed. Exits 1 if a check fails.",
    )
    parser.add_argument("--device", default="", help="cuda, cuda:1, xpu, mps or cpu; the first that there is")
    parser.add_argument("--card", type=float, help="play a card of so many GiB, such as 12, 16 or 24")
    parser.add_argument("--memory-fraction", type=float, help="the same, as a share of this card's memory")
    parser.add_argument("--only", choices=("checks", "table"), help="leave the other half out")
    parser.add_argument("--minutes", type=float, default=8, help="what has not begun by then is left out (8)")
    parser.add_argument("--size", type=int, help="width of the weights: 5120 on a GPU, 512 on a CPU")
    parser.add_argument("--no-comfyui", action="store_true", help="leave out what needs a ComfyUI")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu", help="where the page and the logs go")
    parser.add_argument(
        "--publish", type=Path, metavar="PAGE", help="put a page into docs/performance.md; runs nothing"
    )
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    found = parser.parse_args(words)
    if found.publish:
        return found
    found.device = found.device or first_device()
    found.size = found.size or SIZES.get(found.device.partition(":")[0], 512)
    if found.size < 128 or found.size % 128:
        parser.error(f"--size is {found.size}, expected a multiple of 128")
    found.share = share_of(found, parser)
    return found


def first_device() -> str:
    """The best kind of device that this torch finds."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return "xpu"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def share_of(found: argparse.Namespace, parser: argparse.ArgumentParser) -> float | None:
    """The share of the card's memory that may be used, or None for all of it."""
    if found.card is None and found.memory_fraction is None:
        return None
    if not found.device.startswith("cuda"):
        parser.error(f"a smaller card can be played on CUDA only, the device is {found.device}")
    if found.memory_fraction is not None:
        share, said = found.memory_fraction, f"--memory-fraction {found.memory_fraction:g}"
    else:
        import torch

        whole = torch.cuda.get_device_properties(found.device).total_memory / GIB
        share, said = found.card / whole, f"--card {found.card:g}: this one has {whole:.1f} GiB"
    if not 0 < share <= 1:
        parser.error(f"{said}, expected a part of the card's memory")
    return share


def words_of(found: argparse.Namespace) -> list[str]:
    """The command line by which a process of its own is asked for the same."""
    words = ["--device", found.device, "--size", str(found.size), "--output", os.fspath(found.output)]
    words += ["--memory-fraction", str(found.share)] if found.share else []
    words += ["--only", found.only] if found.only else []
    return [*words, *(["--no-comfyui"] if found.no_comfyui else [])]
