"""What *Train Adapter* does with what it is given."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from typing import Any

import folder_paths
from torch import Tensor

from ....lyco_core.adapter_reader import load_adapter_set
from ....lyco_core.errors import TrainError
from ....lyco_core.io.paths import without_ending
from ....lyco_core.train.batches import require_one_shape
from ....lyco_core.train.items import Item
from ....lyco_core.train.options import TrainOptions
from ....lyco_core.train.training_files import files_of, name_of
from ..files import is_listed, output_path, require_plain
from ..model.lora_model import LoraModel, lora_model_of
from ..model.matching import model_weights
from ..protocols import CLIP, VAE, Conditioning, ModelPatcher
from .adapter_files import with_adapter
from .as_page import series
from .conditions import entries_of
from .folder_dataset import joined
from .picture import loss_picture
from .run import Data, Trained, train
from .samples import from_graph
from .telling import Asked, Telling


@dataclasses.dataclass(frozen=True)
class Result:
    """What *Train Adapter* returns."""

    name: str
    """The adapter's, for the loaders."""
    model: ModelPatcher
    losses: dict[str, list[float]]
    picture: Tensor
    report: str
    lora: LoraModel
    """The adapter as ComfyUI's own nodes take it."""
    series: list[dict[str, float | None]]
    """The steps, as the web extension takes them; see `as_page.series`."""
    end: dict[str, Any]
    """How it ended, for the web extension; see `telling.Telling.ended`."""
    samples: dict[str, list[dict[str, Any]]]
    """Those that were made, as ComfyUI names them: pictures under `images`, sounds under `audio`."""


def train_on(
    model: ModelPatcher,
    data: Data,
    options: TrainOptions,
    asked: Asked,
    high: ModelPatcher | None = None,
    clip: CLIP | None = None,
    vae: VAE | None = None,
    vision: Any = None,
) -> Result:
    """Train, and place the result on a clone of `model`.

    Args:
        asked: by what; its node is told of the progress.
        high: the model for high noise, of two.
        clip, vae, vision: what samples are made with while it trains.

    Raises:
        LycoError: see `run.train`.
    """
    if not (options.run.enable_bucket or data.datasets):  # whose sizes are as somebody chose them
        require_one_shape(data.items)
    options = _with_free_name(options)
    name, path = output_path("loras", options.save.output_name)
    sampling = from_graph(options, model, clip, vae, vision)
    with Telling(asked) as tell:
        done: Trained = train(
            model,
            data,
            options,
            os.path.dirname(path),
            tell,
            saved=tell.saved,
            needs=tell.needs,
            high=high,
            sampling=sampling and tell.following(sampling),
        )
    trained = with_adapter(model, done.path)
    return Result(
        name,
        trained.model,
        {"loss": [step.loss for step in done.steps]},
        loss_picture(done.steps),
        "\n".join(filter(None, [done.report, trained.report])),
        _lora(model, done.path),
        series(done.steps),
        tell.ended(),
        _by_kind(tell.samples),
    )


def _by_kind(samples: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        found.setdefault("audio" if sample["filename"].endswith(".flac") else "images", []).append(sample)
    return found


def _lora(model: ModelPatcher, path: str) -> LoraModel:
    """The LORA_MODEL of a file that was trained on `model`."""
    family = model_weights(model).architecture
    assert family is not None  # what is trained is known
    return lora_model_of(load_adapter_set(path, architecture=family.id))


def _with_free_name(options: TrainOptions) -> TrainOptions:
    """Options whose files replace and hide no others: NAME, else NAME-2 and so on.

    A training that goes on from a state keeps the name that it began with.
    """
    first = without_ending(options.save.output_name)
    require_plain("loras", first)
    folder = os.path.join(folder_paths.get_output_directory(), "loras")
    os.makedirs(folder, exist_ok=True)
    names = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
    free = (name for name in names if not is_listed("loras", f"{name}.safetensors") and not files_of(folder, name))
    began = name_of(options.run.resume, first) if options.run.resume else None
    name = began or next(free)
    return dataclasses.replace(options, save=dataclasses.replace(options.save, output_name=name))


def data_of(
    latents: Sequence[dict[str, Any]] | None,
    positive: Sequence[list[Conditioning]] | None,
    empty: Sequence[list[Conditioning]] | None,
    validation_latents: Sequence[dict[str, Any]] | None,
    validation_positive: Sequence[list[Conditioning]] | None,
    datasets: Sequence[Data] | None = None,
    validation_datasets: Sequence[Data] | None = None,
) -> Data:
    """The node's inputs as items: those of datasets, then of latents.

    Raises:
        TrainError: nothing is connected, their numbers differ, or a latent is of a kind that is not trained on.
    """
    if not (datasets or latents or positive):
        raise TrainError(
            "there is nothing to learn from; connect a Training Dataset to dataset, or latents and positive"
        )
    held_out, learned = list(validation_datasets or ()), list(datasets or ())
    for kind, some, captions, all_of in (
        ("validation ", validation_latents, validation_positive, held_out),
        ("", latents, positive, learned),
    ):
        if some or captions:
            all_of.append(Data(items_of(some or (), captions or (), kind)))
    validation = [item for one in held_out for item in one.items]
    found = joined(learned)
    own = next(entries_of(empty), None) if empty else found.empty
    return dataclasses.replace(found, empty=own, validation=validation)


def items_of(latents: Sequence[dict[str, Any]], positive: Sequence[list[Conditioning]], kind: str) -> list[Item]:
    """Latents with their captions; a single caption is that of all."""
    samples = [(f"{kind}latent {number}", one) for number, latent in enumerate(latents) for one in _samples(latent)]
    entries = list(entries_of(positive))
    if len(entries) == 1:
        entries *= len(samples)
    if len(entries) != len(samples):
        raise TrainError(
            f"there are {len(samples)} {kind}latents and {len(entries)} {kind}captions; give as many captions as "
            "latents, in the same order, or a single one for all"
        )
    return [Item(sample, entry, name) for (name, sample), entry in zip(samples, entries, strict=True)]


def _samples(latent: dict[str, Any]) -> list[Tensor]:
    samples = latent["samples"]
    if getattr(samples, "is_nested", False):
        raise TrainError("a latent holds sound and picture together, which no model that is trained here takes")
    if latent.get("noise_mask") is not None:
        raise TrainError(
            "a latent holds a noise mask, which training does not use; take it off (VAE Encode makes none)"
        )
    return list(samples)
