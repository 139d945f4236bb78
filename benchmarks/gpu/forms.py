"""The adapters that are timed, and checked at full size: those that people have, by name."""

from __future__ import annotations

import math

import torch

from lyco_core.adapters import Adapter, DoRA, LoHa, LoKr, LoRA


def adapters(out: int, width: int) -> dict[str, Adapter]:
    """Name -> an adapter of a weight (out, width), whose ΔW is about as large as a weight of unit gain."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    gain = width**-0.5

    def lora() -> LoRA:
        return LoRA(normal(out, 16, scale=0.25), normal(16, width, scale=gain), alpha=16.0)

    most = math.gcd(64, out // 4, width // 4)
    return {
        "LoRA rank 16": lora(),
        "LoHa rank 32": LoHa(
            normal(out, 32), normal(32, width, scale=gain / 32), normal(out, 32), normal(32, width), alpha=32.0
        ),
        f"LoKr rank 16 ({most} x {most})": LoKr(
            w1=normal(most, most),
            w2_a=normal(out // most, 16, scale=0.25),
            w2_b=normal(16, width // most, scale=gain),
            alpha=16.0,
        ),
        "LoKr factor 16, W2 full": LoKr(w1=normal(16, 16), w2=normal(out // 16, width // 16, scale=gain)),
        "DoRA on LoRA rank 16": DoRA.of(lora(), normal(out, 1).abs() + 1),
    }
