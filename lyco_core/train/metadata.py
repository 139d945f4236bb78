"""What Musubi Tuner's files record of the training: the `ss_…` entries and ModelSpec's."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .loop import Training
from .option import Saved
from .options import TrainOptions, every_value
from .saving import ModelSpec

__all__ = ["Run", "model_spec"]


def model_spec(training: Training) -> ModelSpec:
    """ModelSpec's entries, as far as the options say them."""
    save, noise = training.options.save, training.options.noise
    limited = (noise.min_timestep, noise.max_timestep) != (0, 1000)
    said = {option.name: value for option, value in every_value(training.options) if option.saved is Saved.MODELSPEC}
    entries: dict[str, Any] = {name.removeprefix("metadata_"): value or None for name, value in said.items()}
    entries["title"] = entries["title"] or save.output_name
    entries["timestep_range"] = (int(noise.min_timestep), int(noise.max_timestep)) if limited else None
    return ModelSpec(**entries)


_PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16"}
"""What the model computes in -> Musubi's word for it."""


class Run:
    """One training, and the `ss_…` entries that its files record of it."""

    def __init__(
        self, training: Training, datasets: Sequence[Mapping[str, Any]], model: str = "", vae: str = ""
    ) -> None:
        """`datasets`: what each was made of, under Musubi's names; `model`, `vae`: names of files, if known."""
        self._training, self._datasets, self._model, self._vae = training, datasets, model, vae
        self._session, self._started = secrets.randbelow(2**32), time.time()

    def metadata(self) -> dict[str, str]:
        """The entries as they are now; all values are texts, as Python prints them."""
        training, options = self._training, self._training.options
        if options.save.no_metadata:
            return {}
        values: dict[str, object] = {
            "session_id": self._session,
            "training_started_at": self._started,
            "training_finished_at": time.time(),
            "num_train_items": sum(item.repeats for item in training.items),
            "num_batches_per_epoch": len(training.batches),
            "num_epochs": -(-training.total_steps // training.steps_per_epoch),
            "max_train_steps": training.total_steps,
            "mixed_precision": _PRECISIONS.get(training.model.dtype, "no"),
            "optimizer": _optimizer(training),
            "datasets": json.dumps(list(self._datasets)),
            "steps": training.step,
            "epoch": training.epoch,
            **_said(options),
        }
        if self._model:
            values["sd_model_name"] = self._model
        if self._vae:
            values["vae_name"] = self._vae
        return {f"ss_{name}": str(value) for name, value in values.items()}


def _said(options: TrainOptions) -> dict[str, object]:
    """The entries of options that are saved as they are."""
    said: dict[str, object] = {}
    for option, value in every_value(options):
        if option.saved is Saved.ALWAYS or (option.saved is Saved.IF_SET and value != option.default):
            said[option.name] = value
        elif option.saved is Saved.OR_NONE:
            said[option.name] = value or None
    return said


def _optimizer(training: Training) -> str:
    cls, args = type(training.optimizer), training.options.optimizer.optimizer_args
    return f"{cls.__module__}.{cls.__name__}" + (f"({','.join(args)})" if args else "")
