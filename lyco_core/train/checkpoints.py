"""Which files a training writes, and when; names and what is kept are Musubi Tuner's."""

from __future__ import annotations

import os
import re

from ..errors import FileError, about_file
from ..io import refuse_existing
from .loop import Step, Training
from .metadata import Run, model_spec
from .options import ENDINGS
from .saving import STORAGE_DTYPES, save_network
from .state import save_state

__all__ = ["Checkpoints", "files_of", "require_free"]

_OURS = r"(?:-step(?P<step>\d{8})|-(?P<epoch>\d{6}))?(?:\.safetensors|-state\.pt)"


class Checkpoints:
    """The files of one training in a folder."""

    def __init__(self, training: Training, run: Run, folder: str | os.PathLike[str]) -> None:
        self._training, self._run, self._folder = training, run, os.fspath(folder)
        self._save = training.options.save

    def after(self, step: Step) -> list[str]:
        """Save what is due after a step, remove what is no longer kept; the paths of new adapters."""
        saved: list[str] = []
        training, save = self._training, self._save
        if step.step >= training.total_steps:
            return saved
        if save.save_every_n_steps and step.step % save.save_every_n_steps == 0:
            saved.append(self.save(f"-step{step.step:08d}"))
            if save.save_last_n_steps:
                self._remove("step", step.step - save.save_last_n_steps - 1)
        every = save.save_every_n_epochs * training.steps_per_epoch
        if every and step.step % every == 0:
            saved.append(self.save(f"-{training.epoch:06d}"))
            if save.save_last_n_epochs:
                self._remove("epoch", training.epoch - save.save_last_n_epochs * save.save_every_n_epochs)
        return saved

    def finish(self) -> str:
        """Save the result under the name without a number."""
        return self.save("")

    def interrupted(self) -> str | None:
        """Save what there is, with its state in any case; None if there is nothing yet."""
        if self._training.step == 0:
            return None
        return self.save(f"-step{self._training.step:08d}", state=True)

    def save(self, ending: str, *, state: bool = False) -> str:
        """Write NAME`ending`.safetensors, and its state if asked for; the adapter's path.

        Raises `FileError` or `TrainError`; files that were there are left as they were.
        """
        training = self._training
        path = os.path.join(self._folder, f"{self._save.output_name}{ending}.safetensors")
        if training.world.writes:
            dtype = STORAGE_DTYPES[self._save.save_precision]
            with training.as_saved():
                save_network(
                    path, training.network, model_spec(training), self._run.metadata(), dtype=dtype, overwrite=True
                )
            if state or self._save.save_state:
                save_state(path.removesuffix(".safetensors") + "-state.pt", training)
        return path

    def _remove(self, kind: str, last: int) -> None:
        """Remove this training's files of steps or epochs up to number `last`."""
        if not self._training.world.writes:
            return
        for name in os.listdir(self._folder):
            match = re.fullmatch(re.escape(self._save.output_name) + _OURS, name)
            if match and match[kind] and int(match[kind]) <= last:
                os.remove(os.path.join(self._folder, name))


def files_of(folder: str | os.PathLike[str], output_name: str) -> list[str]:
    """Names of what trainings under this name left in a folder; a disk that ignores case says so itself."""
    found = (re.fullmatch(f".*?({_OURS})", name, re.DOTALL) for name in os.listdir(folder))
    names = {output_name + match[1] for match in found if match}
    return sorted(name for name in names if os.path.lexists(os.path.join(folder, name)))


def require_free(folder: str | os.PathLike[str], output_name: str) -> None:
    """Raise `FileError` if files cannot be written under this name, or an earlier training left some, to be lost."""
    if found := files_of(folder, output_name):
        raise FileError(f"{found[0]} is there already; choose another output_name, or resume from its state")
    path = os.path.join(folder, output_name + max(ENDINGS, key=len))
    with about_file(path):
        refuse_existing(path, overwrite=False)
