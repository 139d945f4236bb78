"""`Adapter.add_to_` against ComfyUI's own adapters on one weight, and against the memory's speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from timing import alternate, machine

SIZE = 5120


def adapters():
    """The adapters to time, by name."""
    import torch

    from lyco_core.adapters import LoHa, LoKr, LoRA

    torch.manual_seed(0)
    r = torch.randn
    return {
        "LoKr (64 x 80 factors, rank 16)": LoKr(w1=r(64, 64), w2_a=r(80, 16), w2_b=r(16, 80), alpha=8.0),
        "LoKr (factor 4, rank 16)": LoKr(w1=r(4, 4), w2_a=r(1280, 16), w2_b=r(16, 1280), alpha=8.0),
        "LoKr (factor 8, full W2)": LoKr(w1=r(8, 8), w2=r(640, 640)),
        "LoHa (rank 32)": LoHa(r(SIZE, 32), r(32, SIZE), r(SIZE, 32), r(32, SIZE), alpha=16.0),
        "LoRA (rank 32)": LoRA(r(SIZE, 32), r(32, SIZE), alpha=16.0),
    }


def stock_adapter(adapter):
    """The same adapter in ComfyUI's own class."""
    from comfy.weight_adapter import LoHaAdapter, LoKrAdapter, LoRAAdapter

    t, alpha = adapter.tensors.get, adapter.alpha
    if adapter.algorithm == "lokr":
        weights = (t("w1"), t("w2"), alpha, t("w1_a"), t("w1_b"), t("w2_a"), t("w2_b"), t("t2"), None)
        return LoKrAdapter(set(), weights)
    if adapter.algorithm == "loha":
        return LoHaAdapter(set(), (t("w1_a"), t("w1_b"), alpha, t("w2_a"), t("w2_b"), None, None, None))
    return LoRAAdapter(set(), (t("up"), t("down"), alpha, None, None, None))


def times(dtype) -> None:
    """Print both sides for a weight of `dtype`."""
    import torch

    weight = torch.randn(SIZE, SIZE).to(dtype)
    one_pass = alternate({"pass": lambda: weight.mul_(1.0)})["pass"]
    print(f"\n{str(dtype).removeprefix('torch.')} weight of {SIZE} x {SIZE}; one pass over it: {one_pass:.1f} ms")
    for name, adapter in adapters().items():
        stock = stock_adapter(adapter)
        sides = {"ours": lambda a=adapter: a.add_to_(weight, 1e-4)}
        sides["stock"] = lambda s=stock: s.calculate_weight(weight, "k", 1e-4, 1.0, None, lambda d: d, weight.dtype)
        found = alternate(sides)
        ratio = found["stock"] / found["ours"]
        print(f"  {name:<32} ours {found['ours']:6.1f} ms   stock {found['stock']:6.1f} ms   {ratio:5.1f} x")


def peak() -> int:
    """The process's peak memory in kB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def memory(name: str) -> None:
    """Print the extra peak memory of one add_to_, as a part of the weight; in a process of its own."""
    import torch

    adapter = adapters()[name]
    small = {n: t[:1] if t.dim() < 2 else t for n, t in adapter.tensors.items()}
    weight = torch.randn(SIZE, SIZE)
    adapter.with_tensors(small).add_to_(weight[: adapter.shape[0]], 0.0)
    torch.mm(weight[:256, :256], weight[:256, :256])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    adapter.add_to_(weight, 1e-4)
    extra = peak() - before
    print(f"  {name:<32} {extra / 1024:6.1f} MB   1/{weight.nbytes / 1024 / max(extra, 1):.0f} of the weight")


def main() -> None:
    """Compare with ComfyUI, then measure memory."""
    import torch
    from lyco_testing.comfy import find_comfyui, import_comfyui, why_not

    print(machine())
    comfyui = find_comfyui()
    if reason := why_not(comfyui):
        print(f"not compared with ComfyUI: {reason}")
        return
    assert comfyui is not None
    import_comfyui(comfyui)
    for dtype in (torch.float32, torch.bfloat16):
        times(dtype)
    print("\nextra memory of add_to_ (float32)")
    for name in adapters():
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    memory(sys.argv[1]) if len(sys.argv) > 1 else main()
