"""Where a training's numbers and samples go beside its own record: TensorBoard's events, and a run of wandb."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from ..errors import TrainError, about_file
from ..io.toml import read_toml
from .options import SaveOptions
from .samples import Sample

__all__ = ["Tracker", "require_trackers", "trackers_of"]

logger = logging.getLogger("lyco")

_PROJECT = "network_train"
"""Musubi's, of wandb's runs that are told no other."""

_KNOWN = ("tensorboard", "wandb")


class Tracker(Protocol):
    """Something that shows how a training goes. Its methods may raise whatever it raises."""

    name: str

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers, by Musubi's names."""
        ...

    def show(self, sample: Sample) -> None:
        """Take the picture of a sample; sound has none."""
        ...

    def close(self) -> None:
        """Let what is buffered reach its place."""
        ...


def require_trackers(save: SaveOptions) -> None:
    """Raise `TrainError` if wandb is asked for and not installed, or `log_tracker_config` is none."""
    if save.log_with in ("wandb", "all") and importlib.util.find_spec("wandb") is None:
        raise TrainError(
            f"log_with is {save.log_with}, and wandb is not installed; pip install wandb, or leave log_with out"
        )
    _settings(save)


def trackers_of(save: SaveOptions) -> list[Tracker]:
    """Those that are asked for, begun. Raises `TrainError` if one cannot begin."""
    settings, made = _settings(save), list[Tracker]()
    folder = os.path.join(save.logging_dir, save.log_prefix + time.strftime("%Y%m%d%H%M%S"))
    if save.log_with != "wandb" and save.logging_dir and (events := _Events.begun(folder, settings["tensorboard"])):
        made.append(events)
    if save.log_with in ("wandb", "all"):
        made.append(_Run(save, folder if save.logging_dir else "", settings["wandb"]))
    return made


def _settings(save: SaveOptions) -> dict[str, dict[str, Any]]:
    """What `log_tracker_config` says for each tracker, as accelerate takes it."""
    found: dict[str, Any] = {name: {} for name in _KNOWN}
    if save.log_tracker_config:
        with about_file(save.log_tracker_config):
            found |= read_toml(Path(save.log_tracker_config))
            wrong = [name for name, table in found.items() if name not in _KNOWN or not isinstance(table, dict)]
            if wrong:
                raise TrainError(f"has {wrong[0]}, expected the tables [wandb] and [tensorboard] alone")
    return cast("dict[str, dict[str, Any]]", found)


class _Events:
    """TensorBoard's."""

    name = "TensorBoard"

    def __init__(self, writer: Any) -> None:  # noqa: ANN401 - TensorBoard's
        self._writer = writer

    @classmethod
    def begun(cls, folder: str, settings: Mapping[str, Any]) -> _Events | None:
        """Those in a folder; None, which is told, if TensorBoard is not installed. Raises `TrainError`."""
        try:
            from torch.utils.tensorboard import SummaryWriter as writer
        except ImportError:
            logger.warning(
                "logging_dir needs tensorboard: pip install tensorboard; until then only NAME.jsonl is written"
            )
            return None
        try:
            return cls(writer(folder, **settings))
        except (TypeError, OSError) as error:
            raise TrainError(
                f"{folder}: TensorBoard cannot begin: {error}; mend logging_dir, or [tensorboard] in log_tracker_config"
            ) from None

    def add(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def show(self, sample: Sample) -> None:
        if (picture := sample.picture) is not None:
            tag = f"sample/{sample.number:02d}"
            self._writer.add_image(tag, picture.numpy(), sample.step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class _Run:
    """wandb's. Its key is wandb's own affair: in the environment, or where `wandb login` put it."""

    name = "wandb"

    def __init__(self, save: SaveOptions, folder: str, settings: Mapping[str, Any]) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        given: dict[str, Any] = {"project": save.log_tracker_name or _PROJECT}
        given |= {"name": save.wandb_run_name} if save.wandb_run_name else {}
        try:
            if folder:
                os.makedirs(folder, exist_ok=True)
                given["dir"] = folder
            self._run = self._wandb.init(**given | dict(settings))
        except Exception as error:  # wandb's have no class in common with those of what it calls
            why = str(error).partition("\n")[0]
            raise TrainError(f"wandb cannot begin a run: {why}; run wandb login, or leave log_with out") from error

    def add(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def show(self, sample: Sample) -> None:
        if (picture := sample.picture) is not None:
            shown = self._wandb.Image(picture.numpy(), caption=sample.prompt)
            self._run.log({f"sample_{sample.number}": shown}, step=sample.step)

    def close(self) -> None:
        self._run.finish()
