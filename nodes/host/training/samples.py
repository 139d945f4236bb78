"""Samples while it trains: of what and when they are made, and what is said where one cannot be."""

from __future__ import annotations

import dataclasses
import functools
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management

from ....lyco_core.console import clear_line
from ....lyco_core.errors import TrainError
from ....lyco_core.train.dataset import Dataset
from ....lyco_core.train.distributed import World
from ....lyco_core.train.first_frames import kind_of, width_seen
from ....lyco_core.train.loop import Training
from ....lyco_core.train.options import TrainOptions
from ....lyco_core.train.references import References
from ....lyco_core.train.sample_prompt import SamplePrompt, about_prompt, located
from ....lyco_core.train.samples import Sample, makes_sound, prompts_of, references_of_prompts, require_fitting
from ....lyco_core.train.targets import require_trainable
from ..model.matching import model_weights
from ..protocols import CLIP, VAE, ModelPatcher
from .demand import require_whole_tokens
from .encoders import Encoding
from .flow_model import FlowModel
from .folders import input_file
from .memory import first_line, out_of_memory
from .outputs import RATE, Apart, Form, Whole
from .pair import Pair
from .sample_inputs import Inputs, encoded_inputs, loaded_inputs
from .sampling import Check, Prompted, decoded, latents_of, sigmas_of, undisturbed
from .sound import Heard, sound_inputs

log = logging.getLogger("lyco")

FOLDER = "sample"
"""Musubi's, beside the adapter."""

INTERRUPTED = comfy.model_management.InterruptProcessingException
"""What ComfyUI raises where a person interrupts: an Exception in older ones."""


def _nothing() -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What samples are made with."""

    prompts: Sequence[Prompted]
    vae: Callable[[], VAE]
    told: Callable[[Sample], None] = lambda _: None
    """Hears of every sample once its file is whole."""
    failed: Callable[[int, str], None] = lambda step, why: None
    """Hears of samples that could not be made after a step, and why."""
    check: Check = _nothing
    """Called at every step of the sampler; may raise to stop the training."""
    form: Form = Whole()  # noqa: RUF009 - frozen
    """What kind of sample the model makes."""


def prompted(prompts: Sequence[SamplePrompt], inputs: Sequence[Inputs], seed: int) -> list[Prompted]:
    """The prompts with what was made of them."""
    made = zip(prompts, seeds_of(prompts, seed), inputs, strict=True)
    return [Prompted(prompt, own, *both) for prompt, own, both in made]


def seeds_of(prompts: Sequence[SamplePrompt], seed: int) -> list[int]:
    """The seeds of prompts; one without has the training's, and its number."""
    return [seed + number if prompt.seed is None else prompt.seed for number, prompt in enumerate(prompts)]


def _form(how: References | None, rate: float | None) -> Form:
    return Apart(how.whole) if how and how.layers else Whole(rate or RATE)


def from_files(
    prompts: Sequence[SamplePrompt], seed: int, dataset: Dataset, encoders: Encoding, world: World
) -> Sampling | None:
    """What a training's samples are made with, its prompts encoded or read from a cache; None if it makes none.

    Args:
        dataset: the first one, whose cache it is.
    """
    if not prompts:
        return None
    made = prompted(prompts, encoded_inputs(prompts, dataset, encoders, world), seed)
    form = _form(encoders.references, encoders.frames_a_second)
    return Sampling(made, functools.cache(encoders.load_vae), form=form)


def from_graph(
    options: TrainOptions, model: ModelPatcher, clip: CLIP | None, vae: VAE | None, vision: Any = None
) -> Sampling | None:
    """The same of what a graph has loaded. Raises `TrainError` if that is not there, or a prompt does not fit."""
    if not options.sample.sample_prompts:
        return None
    prompts = located(prompts_of(options), input_file)
    if clip is None or vae is None:
        lacking = " and ".join(name for name, one in (("clip", clip), ("vae", vae)) if one is None)
        raise TrainError(f"sample_prompts needs {lacking}; connect it, or empty sample_prompts")
    weights, seed = model_weights(model), options.run.seed
    kind = kind_of(weights, seen=vision is not None or any(prompt.image_path for prompt in prompts))
    how = references_of_prompts(weights, prompts)
    require_fitting(weights, prompts, kind, how)
    family, trained = require_trainable(weights.architecture)
    if makes_sound(weights):
        made = sound_inputs(prompts, seeds_of(prompts, seed), family.id, clip)
        return Sampling(prompted(prompts, made, seed), lambda: vae, form=Heard(family.id))
    if kind and kind.looks and vision is None:
        raise TrainError("sample_prompts needs clip_vision, by which the model sees a first frame; connect it")
    made = loaded_inputs(prompts, kind, how, clip, vae, vision)
    if kind and kind.vision:
        _require_fitting(made, kind.sees, width_seen(weights, kind))
    return Sampling(prompted(prompts, made, seed), lambda: vae, form=_form(how, trained.frames_a_second))


def _require_fitting(made: Sequence[Inputs], sees: str, wanted: int) -> None:
    """Raise `TrainError` if an image encoder sees other numbers than the model reads."""
    for _, more in (entry for positive, _ in made for entry in positive):
        found = getattr(more["clip_vision_output"], sees).shape[-1] if "clip_vision_output" in more else wanted
        if found != wanted:
            raise TrainError(
                f"clip_vision sees {found} numbers in a patch, and the model reads {wanted}; connect the one that "
                "ComfyUI's workflow of the model loads"
            )


class Samples:
    """The samples of one training."""

    def __init__(
        self,
        training: Training,
        model: FlowModel | Pair,
        sampling: Sampling,
        folder: str,
        record: Callable[[Sample], None] = lambda _: None,
    ) -> None:
        """`record` hears of every sample first.

        Raises `TrainError` for a prompt that the model cannot be sampled with."""
        self._training, self._model, self._sampling = training, model, sampling
        self._record = record
        self._options, self._name = training.options.sample, training.options.save.output_name
        self._folder = os.path.join(folder, FOLDER)
        self._shapes: list[tuple[int, ...]] = []
        for number, asked in enumerate(sampling.prompts, 1):
            with about_prompt(number):
                shape = sampling.form.shape(model.patchers[0], asked.prompt, sampling.vae())
                require_whole_tokens(training.network.choice.trained, "a sample", shape)
                self._shapes.append(shape)
                sigmas_of(model.patchers, asked.prompt)

    def after(self, step: int) -> None:
        """Make the samples that are due after a step, 0 before the first; what is in their way is told and passed."""
        if not self._training.world.writes or not self._options.due(step, self._training.steps_per_epoch):
            return
        clear_line(sys.stderr)
        log.info("step %d: making %d samples", step, len(self._sampling.prompts))
        try:
            self._make(step)
        except INTERRUPTED:
            raise
        except Exception as error:  # whatever is wrong with a picture, the training is worth more
            why = f"out of memory: {first_line(error)}" if out_of_memory(error) else first_line(error)
            log.warning("step %d: no sample could be made, training goes on: %s", step, why)
            self._sampling.failed(step, why)
        gc.collect()
        comfy.model_management.soft_empty_cache()

    def _make(self, step: int) -> None:
        family, sampling = self._training.network.choice.architecture.id, self._sampling
        vae = sampling.vae()
        with undisturbed(self._training):
            latents = latents_of(self._model, family, sampling.prompts, self._shapes, sampling.check)
            made = decoded(self._model, sampling.form, vae, latents, sampling.check)
        for number, (asked, output) in enumerate(zip(sampling.prompts, made, strict=True)):
            path = os.path.join(self._folder, f"{self._name}_{step:06d}_{number:02d}_{asked.seed}")
            sample = Sample(step, number, asked.prompt.prompt, asked.seed, output.write(path), output.frames)
            self._record(sample)
            sampling.told(sample)
