"""Samples while it trains: when, the files that they become, and what is said where one cannot be made."""

from __future__ import annotations

import dataclasses
import functools
import gc
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
from PIL import Image
from torch import Tensor

from ....lyco_core.console import clear_line
from ....lyco_core.errors import TrainError, about_file
from ....lyco_core.io.output import make_folder_of, new_files
from ....lyco_core.train.dataset import Dataset
from ....lyco_core.train.distributed import World
from ....lyco_core.train.first_frames import kind_of, width_seen
from ....lyco_core.train.image_inputs import image_input
from ....lyco_core.train.layers import require_no_layers
from ....lyco_core.train.loop import Training
from ....lyco_core.train.options import TrainOptions
from ....lyco_core.train.prompts import SamplePrompt, located
from ....lyco_core.train.references import references_of_prompts
from ....lyco_core.train.samples import Sample, prompts_of, require_pictures_of
from ..model.matching import model_weights
from ..protocols import CLIP, VAE, ModelPatcher
from .demand import require_whole_tokens
from .encoders import Encoding
from .flow_model import FlowModel
from .folders import input_file
from .memory import first_line, out_of_memory
from .pair import Pair
from .sample_inputs import Inputs, encoded_inputs, loaded_inputs
from .sampling import Prompted, latents_of, pixels_of, shape_of, sigmas_of, undisturbed

log = logging.getLogger("lyco")

FOLDER = "sample"
"""Musubi's, beside the adapter."""

RATE = 16
"""Frames a second of a video, of a family of which none is known."""

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
    check: Callable[[], None] = _nothing
    """Called at every step of the sampler; may raise to stop the training."""


def prompted(prompts: Sequence[SamplePrompt], inputs: Sequence[Inputs], seed: int) -> list[Prompted]:
    """The prompts with what was made of them; one without a seed has the training's, and its number."""
    return [
        Prompted(prompt, seed + number if prompt.seed is None else prompt.seed, *made)
        for number, (prompt, made) in enumerate(zip(prompts, inputs, strict=True))
    ]


def from_files(
    prompts: Sequence[SamplePrompt], seed: int, dataset: Dataset, encoders: Encoding, world: World
) -> Sampling | None:
    """What a training's samples are made with, its prompts encoded or read from a cache; None if it makes none.

    Args:
        dataset: the first one, whose cache it is.
    """
    if not prompts:
        return None
    made = encoded_inputs(prompts, dataset, encoders, world)
    return Sampling(prompted(prompts, made, seed), functools.cache(encoders.load_vae))


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
    weights = model_weights(model)
    require_no_layers(weights, prompts)
    kind = kind_of(weights, seen=vision is not None or any(prompt.image_path for prompt in prompts))
    how = references_of_prompts(weights, prompts)
    require_pictures_of(prompts, kind, how, image_input(weights))
    if kind and kind.vision and vision is None:
        raise TrainError("sample_prompts needs clip_vision, by which the model sees a first frame; connect it")
    made = loaded_inputs(prompts, kind, how, clip, vae, vision)
    if kind and kind.vision:
        _require_fitting(made, kind.sees, width_seen(weights, kind))
    return Sampling(prompted(prompts, made, options.run.seed), lambda: vae)


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
        self._rate = training.network.choice.trained.frames_a_second or RATE
        for number, asked in enumerate(sampling.prompts, 1):
            try:
                shape = shape_of(model.patchers[0], asked.prompt, sampling.vae())
                require_whole_tokens(training.network.choice.trained, "a sample", shape)
                sigmas_of(model.patchers, asked.prompt)
            except TrainError as error:
                raise TrainError(f"prompt {number}: {error}") from None

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
            latents = latents_of(self._model, family, sampling.prompts, vae, sampling.check)
            pictures = pixels_of(self._model, vae, latents, sampling.check)
        for number, (asked, frames) in enumerate(zip(sampling.prompts, pictures, strict=True)):
            path = self._written(f"{self._name}_{step:06d}_{number:02d}_{asked.seed}", frames)
            sample = Sample(step, number, asked.prompt.prompt, asked.seed, path, frames)
            self._record(sample)
            sampling.told(sample)

    def _written(self, name: str, frames: Tensor) -> str:
        """The path of a PNG, or of an animated WebP where there are several frames."""
        images = [Image.fromarray(frame) for frame in frames.numpy()]
        ending, more = (".png", {}) if len(images) == 1 else (".webp", self._animation(images))
        path, data = os.path.join(self._folder, name + ending), io.BytesIO()
        images[0].save(data, format=ending[1:].upper(), **more)
        with about_file(path):
            make_folder_of(path)
            with new_files([path], overwrite=True) as (file,):
                file.write(data.getbuffer(), 0)
        return path

    def _animation(self, images: list[Image.Image]) -> dict[str, object]:
        return {
            "save_all": True,
            "append_images": images[1:],
            "duration": round(1000 / self._rate),
            "loop": 0,
            "quality": 90,
        }
