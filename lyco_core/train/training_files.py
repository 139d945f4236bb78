"""The files that a training writes, and when; their names and which are kept are Musubi Tuner's.

A save that fails is logged and does not end the training; the next one tries again. If the last one fails, its files
go to the system's folder of temporary files.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import tempfile
from collections.abc import Callable

import torch

from ..errors import FileError, LycoError, about_file
from ..io import refuse_existing
from .loop import Step, Training
from .metadata import Run, model_spec
from .options import ENDINGS
from .records import Records
from .samples import Sample
from .saving import STORAGE_DTYPES, save_network
from .state import save_state
from .trackers import trackers_of

__all__ = ["Saved", "TrainingFiles", "files_of", "name_of", "require_place"]

logger = logging.getLogger("lyco")

_OURS = r"(?:-step(?P<step>\d{8})|-(?P<epoch>\d{6}))?(?:\.safetensors|-state\.pt)"


@dataclasses.dataclass(frozen=True)
class Saved:
    """The files of one save."""

    step: int
    adapter: str
    """Its path."""
    state: str | None = None
    """The path of the state that goes with it, if there is one."""


class TrainingFiles:
    """The files of one training in a folder."""

    def __init__(
        self,
        training: Training,
        run: Run,
        folder: str | os.PathLike[str],
        told: Callable[[Saved], None] = lambda _: None,
    ) -> None:
        """`told` hears of every file once it is whole. Raises `TrainError` for a tracker that cannot begin."""
        self._training, self._run, self._folder, self._told = training, run, os.fspath(folder), told
        self._save = training.options.save
        path = os.path.join(self._folder, f"{self._save.output_name}.jsonl")
        self._records = Records(path, trackers_of(self._save)) if training.world.writes else None

    def after(self, step: Step) -> list[str]:
        """Record a step, save what is due and remove what is no longer kept; returns the paths of new adapters."""
        training, save = self._training, self._save
        saved: list[str] = []
        if self._records is not None:
            self._records.add(step, training.epoch)
        if step.step >= training.total_steps:
            return saved
        if save.save_every_n_steps and step.step % save.save_every_n_steps == 0:
            kept = (save.save_last_n_steps, save.save_last_n_steps_state or save.save_last_n_steps)
            last = (step.step - n - 1 if n else 0 for n in kept)
            saved += self._due(f"-step{step.step:08d}", "step", *last)
        every = save.save_every_n_epochs * training.steps_per_epoch
        if every and step.step % every == 0:
            kept = (save.save_last_n_epochs, save.save_last_n_epochs_state or save.save_last_n_epochs)
            last = (training.epoch - n * save.save_every_n_epochs if n else 0 for n in kept)
            saved += self._due(f"-{training.epoch:06d}", "epoch", *last)
        return saved

    def sampled(self, sample: Sample) -> None:
        """Record a sample."""
        if self._records is not None:
            self._records.sampled(sample)

    def finish(self) -> str:
        """Save the result under the name without a number; returns its path.

        Raises `FileError` if that fails; it names the place to which the result was saved instead, if there is one.
        """
        try:
            return self.save("", state=self._save.save_state_on_train_end)
        except LycoError as error:
            raise FileError(self._elsewhere(error, "")) from None

    def interrupted(self) -> str:
        """Save the adapter as it is now, and its state whatever `save_state` says; returns in words where it is."""
        self.close()
        if self._training.step == 0:
            return "nothing was trained yet"
        ending = f"-step{self._training.step:08d}"
        try:
            return f"saved {os.path.basename(self.save(ending, state=True))} and its state"
        except LycoError as error:
            return self._elsewhere(error, ending)

    def save(self, ending: str, *, state: bool = False) -> str:
        """Write NAME`ending`.safetensors, and its state if that is wanted; returns the adapter's path.

        Raises `FileError` or `TrainError`; files that were there are left as they were.
        """
        path = os.path.join(self._folder, f"{self._save.output_name}{ending}.safetensors")
        if self._training.world.writes:
            self._write(path, STORAGE_DTYPES[self._save.save_precision], state=state or self._save.save_state)
        return path

    def _write(self, path: str, dtype: torch.dtype, *, state: bool) -> None:
        training = self._training
        with training.as_saved():
            spec, run = model_spec(training), self._run.metadata()
            save_network(path, training.network, spec, run, dtype=dtype, overwrite=True)
        saved = Saved(training.step, path)
        self._told(saved)
        if state:
            place = path.removesuffix(".safetensors") + "-state.pt"
            save_state(place, training)
            self._told(dataclasses.replace(saved, state=place))

    def close(self) -> None:
        """End the records."""
        if self._records is not None:
            self._records.close()

    def _due(self, ending: str, kind: str, last: int, last_state: int) -> list[str]:
        """Save, then remove the files of up to number `last`, and states of up to `last_state`.

        If saving fails, nothing is removed.
        """
        try:
            saved = self.save(ending)
        except LycoError as error:
            logger.warning("step %d is not saved, training goes on: %s", self._training.step, error)
            return []
        self._remove(kind, last, last_state)
        return [saved]

    def _elsewhere(self, error: LycoError, ending: str) -> str:
        """Write what could not be saved into the system's folder of temporary files; returns the error and the place.

        As float32, with its state: whatever was wrong with the place or the precision, nothing of it is lost.
        """
        try:
            folder = tempfile.mkdtemp(prefix="lyco-")
            path = os.path.join(folder, f"{self._save.output_name}{ending}.safetensors")
            self._write(path, torch.float32, state=True)
        except (LycoError, OSError):
            return str(error)
        return f"{error}. What was trained is in {path}, with its state: move it before that folder is emptied"

    def _remove(self, kind: str, last: int, last_state: int) -> None:
        """Remove this training's files of steps or epochs up to number `last`, and states up to `last_state`."""
        if not self._training.world.writes:
            return
        for name in files_of(self._folder, self._save.output_name):
            match = re.fullmatch(re.escape(self._save.output_name) + _OURS, name)
            if match and match[kind] and int(match[kind]) <= (last_state if name.endswith(".pt") else last):
                try:
                    os.remove(os.path.join(self._folder, name))
                except OSError as error:  # another program has it open, say; the next time tries again
                    logger.warning("%s is no longer needed, but cannot be removed: %s", name, error.strerror)


def require_place(folder: str | os.PathLike[str], output_name: str, *, resume: bool) -> None:
    """Make the folder; raise `FileError` unless a training can write all its files there."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise FileError(f"{os.fspath(folder)}: cannot be made: {error.strerror}; name another output_dir") from None
    if not resume and (found := files_of(folder, output_name)):  # they would be lost
        raise FileError(f"{found[0]} is there already; choose another output_name, or resume from its state")
    longest = output_name + max(ENDINGS, key=len)
    with about_file(longest):
        refuse_existing(os.path.join(folder, longest), overwrite=True)


def name_of(path: str | os.PathLike[str], output_name: str) -> str | None:
    """The name under which a training wrote a file: `output_name`, or NAME-2 and so on; None if it is neither."""
    match = re.fullmatch(rf"({re.escape(output_name)}(?:-\d+)??){_OURS}", os.path.basename(path))
    return match[1] if match else None


def files_of(folder: str | os.PathLike[str], output_name: str) -> list[str]:
    """Names of the files that trainings under `output_name` left in a folder; the disk says whether case counts."""
    found = (re.fullmatch(f".*?({_OURS})", name, re.DOTALL) for name in os.listdir(folder))
    names = {output_name + match[1] for match in found if match}
    return sorted(name for name in names if os.path.lexists(os.path.join(folder, name)))
