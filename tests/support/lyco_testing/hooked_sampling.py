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


class OneStep:
    """What models predict at one step each, through ComfyUI's sampler.

    models: of each step, the MODEL for the prompt and, with `cfg`, the one for the other prompt.
    """

    def __init__(self, family: str, models, positive, negative=None, cfg: float = 3.0) -> None:
        self.family, self.models, self.cfg = family, models, cfg
        self.prompts = positive, prompt(5) if negative is None else negative

    def start(self, count: int) -> tuple[Tensor, Tensor]:
        model = self.models(0)[0]
        found: list[Tensor] = []

        def keep(_, x: Tensor, sigmas: Tensor) -> Tensor:
            found[:] = [sigmas, x.clone()]
            return x

        self._call(model, self.prompts[0], keep, count)
        return found[0], found[1]

    def __call__(self, step: int, x: Tensor) -> Tensor:
        one, other = (
            self._predicted(model, text, step, x) for model, text in zip(self.models(step), self.prompts, strict=True)
        )
        return other + (one - other) * self.cfg

    def _predicted(self, model, text, step: int, x: Tensor) -> Tensor:
        made: list[Tensor] = []

        def once(denoise, _: Tensor, sigmas: Tensor) -> Tensor:
            made.append(denoise(x, sigmas[step] * x.new_ones(1)).clone())
            return x

        self._call(model, text, once, 4)
        return made[0]

    def _call(self, model, text, act, count: int) -> None:
        import comfy.sample
        import comfy.samplers

        def function(denoise, x, sigmas, extra_args=None, **_):
            return act(lambda x, sigma: denoise(x, sigma, **(extra_args or {})), x, sigmas)

        latent = torch.zeros(1, *LATENTS[self.family])
        with known_as(self.family), torch.inference_mode():
            sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", count)
            sampler = comfy.samplers.KSAMPLER(function)
            noise = normal(7, *latent.shape)
            comfy.sample.sample_custom(
                model, noise, 1.0, sampler, sigmas, text, text, latent, disable_pbar=True, seed=1
            )


def by_hand(predict: OneStep, *, count: int = 4) -> list[Tensor]:
    """Euler's method, step by step: what `steps` sees, without its result."""
    sigmas, x = predict.start(count)
    seen: list[Tensor] = []
    with torch.inference_mode():
        for step in range(count):
            denoised = predict(step, x)
            seen.append(denoised.clone())
            x = x + (x - denoised) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
    return seen
