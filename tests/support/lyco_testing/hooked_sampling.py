"""Sampling through ComfyUI's own sampler, step by step, with prompts that have hooks."""

from typing import Any

import torch
from torch import Tensor

from .quantized_models import LATENTS, TEXT, TOKENS, known_as, normal


def prompt(seed: int, hooks: Any = None, mask: Tensor | None = None) -> list[list[Any]]:
    """A CONDITIONING, as the hook nodes make it."""
    import comfy.hooks

    cond = [[normal(seed, 1, TOKENS, TEXT), {"guidance": 3.5, "pooled_output": normal(3, 1, 24)}]]
    cond = comfy.hooks.set_hooks_for_conditioning(cond, hooks)
    return comfy.hooks.set_mask_for_conditioning(cond, mask, "default", 1.0)


def steps(
    family: str, model, positive, negative=None, *, count: int = 4, cfg: float = 3.0, denoise: float = 1.0
) -> list[Tensor]:
    """What each step predicts of the picture, and the result."""
    import comfy.sample

    latent = torch.zeros(1, *LATENTS[family])
    seen: list[Tensor] = []
    with known_as(family), torch.inference_mode():
        made = comfy.sample.sample(
            model,
            normal(7, *latent.shape),
            count,
            cfg,
            "euler",
            "simple",
            positive,
            prompt(5) if negative is None else negative,
            latent,
            denoise=denoise,
            disable_pbar=True,
            callback=lambda step, x0, x, total: seen.append(x0.clone()),
            seed=1,
        )
    return [*seen, made]


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def keyframes(*points: tuple[float, float]):
    """ComfyUI's hook keyframes of (part, number), as its node makes them."""
    import comfy.hooks

    group = comfy.hooks.HookKeyframeGroup()
    for part, number in points:
        group.add(comfy.hooks.HookKeyframe(strength=number, start_percent=part))
    return group
