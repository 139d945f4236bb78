"""What Musubi Tuner's files tell of the training: the `ss_…` entries and ModelSpec's."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .loop import Training
from .saving import ModelSpec

__all__ = ["Run", "model_spec"]


def model_spec(training: Training) -> ModelSpec:
    """ModelSpec's entries, as far as the options say them."""
    save, noise = training.options.save, training.options.noise
    limited = (noise.min_timestep, noise.max_timestep) != (0, 1000)
    return ModelSpec(
        title=save.metadata_title or save.output_name,
        author=save.metadata_author or None,
        description=save.metadata_description or None,
        license=save.metadata_license or None,
        tags=save.metadata_tags or None,
        timestep_range=(int(noise.min_timestep), int(noise.max_timestep)) if limited else None,
    )


_PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16"}
"""What the model computes in -> Musubi's word for it."""


class Run:
    """One training, as its files tell of it."""

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
        run, optimizer, schedule, noise = options.run, options.optimizer, options.schedule, options.noise
        values: dict[str, object] = {
            "session_id": self._session,
            "training_started_at": self._started,
            "training_finished_at": time.time(),
            "output_name": options.save.output_name,
            "learning_rate": optimizer.learning_rate,
            "num_train_items": sum(item.repeats for item in training.items),
            "num_batches_per_epoch": len(training.batches),
            "num_epochs": -(-training.total_steps // training.steps_per_epoch),
            "gradient_checkpointing": run.gradient_checkpointing,
            "gradient_accumulation_steps": run.gradient_accumulation_steps,
            "max_train_steps": training.total_steps,
            "lr_warmup_steps": schedule.lr_warmup_steps,
            "lr_scheduler": schedule.lr_scheduler,
            "network_dropout": options.network.network_dropout or None,
            "mixed_precision": _PRECISIONS.get(training.model.dtype, "no"),
            "seed": run.seed,
            "training_comment": options.save.training_comment or None,
            "optimizer": _optimizer(training),
            "max_grad_norm": optimizer.max_grad_norm,
            "weighting_scheme": noise.weighting_scheme,
            "logit_mean": noise.logit_mean,
            "logit_std": noise.logit_std,
            "mode_scale": noise.mode_scale,
            "guidance_scale": run.guidance_scale,
            "timestep_sampling": noise.timestep_sampling,
            "sigmoid_scale": noise.sigmoid_scale,
            "discrete_flow_shift": noise.discrete_flow_shift,
            "datasets": json.dumps(list(self._datasets)),
            "steps": training.step,
            "epoch": training.epoch,
        }
        if run.ema_decay:
            values["ema_decay"] = run.ema_decay
        if self._model:
            values["sd_model_name"] = self._model
        if self._vae:
            values["vae_name"] = self._vae
        return {f"ss_{name}": str(value) for name, value in values.items()}


def _optimizer(training: Training) -> str:
    cls, args = type(training.optimizer), training.options.optimizer.optimizer_args
    return f"{cls.__module__}.{cls.__name__}" + (f"({','.join(args)})" if args else "")
