"""A sample from the model that is being trained, with the network in it: ComfyUI's own sampler on a model that stays.

Nothing of the model, of the network or of torch's random numbers is another afterwards.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import torch
from torch import Tensor

from ....lyco_core.errors import TrainError
from ....lyco_core.train.loop import Training
from ....lyco_core.train.sample_options import strengths
from ....lyco_core.train.sample_prompt import SamplePrompt
from ..model.merging import unload
from ..protocols import VAE, Conditioning, ModelPatcher
from .flow_model import FlowModel
from .outputs import Form, Output
from .pair import Pair
from .placing import free_on

SAMPLER, SCHEDULER = "euler", "simple"
"""What ComfyUI's own workflows take for flow models."""

Check = Callable[[], None]
"""Called on the way; may raise to stop."""

MARGIN = 1.1
"""How much more than ComfyUI's estimate has to be free for the VAE beside the model."""


@dataclasses.dataclass(frozen=True)
class Prompted:
    """A prompt, encoded."""

    prompt: SamplePrompt
    seed: int
    positive: list[Conditioning]
    negative: list[Conditioning]


class _Guider(comfy.samplers.CFGGuider):
    """ComfyUI's, for a model that is where it is; loading it again would take off what hangs on its modules."""

    def outer_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Callable[..., None] | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
        **shapes: Any,
    ) -> Tensor:
        """ComfyUI's, without the loading."""
        self.inner_model, device = self.model_patcher.model, self.model_patcher.load_device
        noise, latent_image, sigmas = noise.to(device), latent_image.to(device), sigmas.to(device)
        rest = denoise_mask, callback, disable_pbar, seed
        return self.inner_sample(noise, latent_image, device, sampler, sigmas, *rest, **shapes)


@contextmanager
def undisturbed(training: Training) -> Generator[None]:
    """Inside, the network is as it is saved, and draws nothing; afterwards all goes on as if nothing had been."""
    model = training.model
    devices = [model.device] if model.device.type == "cuda" else []
    training.network.eval()  # a step sets its mode itself
    with torch.random.fork_rng(devices), torch.no_grad(), training.as_saved():
        yield


def latents_of(
    model: FlowModel | Pair, family: str, prompts: Sequence[Prompted], shapes: Sequence[tuple[int, ...]], check: Check
) -> list[Tensor]:
    """The sampled latent of each prompt, as the VAE takes it.

    Of two models one samples its part of all prompts, and then the other, so that each comes to the device once.

    Args:
        shapes: of the latents.
        check: called at every step; may raise to stop.
    """
    latents = [torch.zeros(shape) for shape in shapes]
    ways = [model.parts(sigmas_of(model.patchers, asked.prompt)) for asked in prompts]
    for turn, parts in enumerate(zip(*ways, strict=True)):
        for number, (asked, (flow, sigmas)) in enumerate(zip(prompts, parts, strict=True)):
            if len(sigmas) > 1:
                model.turn(sigmas[:1])
                guider = _guider(flow.patcher, asked, family, two=len(ways[number]) > 1)
                noise = _noise(asked, latents[number]) if turn == 0 else torch.zeros_like(latents[number])
                latents[number] = _sampled(guider, noise, latents[number], sigmas, asked.seed, check)
    return latents


def _noise(asked: Prompted, latent: Tensor) -> Tensor:
    return torch.randn(latent.shape, generator=torch.Generator().manual_seed(asked.seed))


def _guider(patcher: ModelPatcher, asked: Prompted, family: str, *, two: bool) -> _Guider:
    strength = strengths(asked.prompt, family, guided=is_guided(patcher), two=two)
    guider = _Guider(patcher)
    guider.set_conds(_told(asked.positive, strength.guidance), _told(asked.negative, strength.guidance))
    guider.set_cfg(strength.cfg)
    return guider


def _sampled(guider: _Guider, noise: Tensor, latent: Tensor, sigmas: Tensor, seed: int, check: Check) -> Tensor:
    sampler = comfy.samplers.sampler_object(SAMPLER)
    found = guider.sample(noise, latent, sampler, sigmas, callback=lambda *_: check(), disable_pbar=True, seed=seed)
    return found.cpu()


def _told(conditioning: list[Conditioning], guidance: float) -> list[Conditioning]:
    return [[text, {**more, "guidance": guidance}] for text, more in conditioning]


def is_guided(patcher: ModelPatcher) -> bool:
    """Whether the model is told how much guidance, instead of being asked twice."""
    return bool(getattr(getattr(patcher.model.diffusion_model, "params", None), "guidance_embed", False))


def sigmas_of(patchers: Sequence[ModelPatcher], prompt: SamplePrompt) -> Tensor:
    """The noise after each step, of one model or of two that sample it in turn.

    Raises `TrainError` for a shift of a model that has none, or if two models have two.
    """
    found, *others = (_sigmas(patcher, prompt) for patcher in patchers)
    if any(not torch.equal(found, other) for other in others):
        raise TrainError(
            "the two models are sampled with different sigmas; lead both through a node of one shift, or give "
            "discrete_flow_shift (--fs)"
        )
    return found


def _sigmas(patcher: ModelPatcher, prompt: SamplePrompt) -> Tensor:
    """The noise after each step; the model's own shift unless the prompt has another."""
    sampling: Any = patcher.get_model_object("model_sampling")
    if prompt.discrete_flow_shift:
        if not (isinstance(sampling, comfy.model_sampling.CONST) and hasattr(sampling, "shift")):
            raise TrainError(
                f"the model has no flow shift, and discrete_flow_shift is {prompt.discrete_flow_shift:g}; leave it out"
            )
        sampling = copy.deepcopy(sampling)
        shift = prompt.discrete_flow_shift
        if isinstance(sampling, comfy.model_sampling.ModelSamplingFlux):  # which takes its logarithm
            sampling.set_parameters(shift=math.log(shift))
        else:
            sampling.set_parameters(shift=shift, multiplier=sampling.multiplier)
    return comfy.samplers.calculate_sigmas(sampling, SCHEDULER, prompt.sample_steps)


def decoded(model: FlowModel | Pair, form: Form, vae: VAE, latents: Sequence[Tensor], check: Check) -> list[Output]:
    """What the VAE makes of each latent; the model leaves the device if the VAE needs its room."""
    needed = max(vae.memory_used_decode(latent.shape, vae.vae_dtype) for latent in latents)
    needed += sum(parameter.nbytes for parameter in vae.first_stage_model.parameters())
    apart = model.device.type != "cpu" and free_on(model.device) < needed * MARGIN
    made: list[Output] = []
    with _out_of_sight(model.patchers), model.aside(apart=apart), torch.inference_mode():
        try:
            for latent in latents:
                check()
                made.append(form.decoded(vae, latent))
        finally:
            unload(vae.patcher)
            comfy.model_management.soft_empty_cache()
    return made


@contextmanager
def _out_of_sight(patchers: Sequence[ModelPatcher]) -> Generator[None]:
    """Inside, ComfyUI does not know that the models are loaded, so it does not take them apart to make room."""
    loaded = comfy.model_management.current_loaded_models
    ours = [entry for entry in loaded if entry.model is not None and any(p.is_clone(entry.model) for p in patchers)]
    for entry in ours:
        loaded.remove(entry)
    try:
        yield
    finally:
        loaded[:0] = ours
