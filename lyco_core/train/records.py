"""What a training records of its steps: lines of JSON beside the adapter, and for trackers that are asked for."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence

from .loop import Step
from .samples import Sample
from .trackers import Tracker

__all__ = ["Records"]

logger = logging.getLogger("lyco")


class Records:
    """A line of JSON a step. What cannot be written, or a tracker not take, is told once and ends nothing."""

    def __init__(self, path: str, trackers: Sequence[Tracker] = ()) -> None:
        """`trackers`: what hears of all that is recorded too."""
        self._path, self._trackers = path, list(trackers)
        self._begun = self._failed = False

    def add(self, step: Step, epoch: int) -> None:
        """Record a step. Of an earlier run the lines before the first step of this one are kept."""
        told = {"step": step.step, "epoch": epoch, "loss": step.loss, "learning_rate": step.learning_rate}
        told |= {"grad_norm": step.grad_norm, "time": round(time.time(), 3)}
        if step.validation is not None:
            told["validation"] = step.validation
        values = {tag: told[name] for tag, name in _TAGS.items() if name in told}
        self._tell(lambda tracker: tracker.add(values, step.step))
        if not self._failed:
            self._write(json.dumps(told) + "\n", step.step)

    def sampled(self, sample: Sample) -> None:
        """Record a sample: a line for each of its files, which is named from the record's folder on."""
        self._tell(lambda tracker: tracker.show(sample))
        for path in () if self._failed else sample.paths:
            file = os.path.relpath(path, os.path.dirname(self._path)).replace(os.sep, "/")
            told = {"step": sample.step, "sample": file, "prompt": sample.prompt, "seed": sample.seed}
            self._write(json.dumps(told) + "\n", sample.step)

    def close(self) -> None:
        """Let what is buffered reach its place."""
        self._tell(lambda tracker: tracker.close())
        self._trackers.clear()

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                what(tracker)
            except Exception as error:  # a server or a disk that is away is no reason to lose a training
                self._trackers.remove(tracker)
                why = str(error).partition("\n")[0]
                logger.warning("%s takes nothing more, training goes on: %s", tracker.name, why)

    def _write(self, line: str, step: int) -> None:
        try:
            if not self._begun:
                kept = _before(self._path, step)
                with open(self._path, "w", encoding="utf-8") as file:
                    file.writelines(kept)
                self._begun = True
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            self._failed = True
            logger.warning("%s: steps are not recorded, training goes on: %s", self._path, error.strerror)


_TAGS = {"loss/current": "loss", "loss/validation": "validation", "lr": "learning_rate", "norm/grad": "grad_norm"}
"""A tracker's name -> that of a line."""


def _before(path: str, step: int) -> list[str]:
    """The lines of a record that are of steps before one."""
    if step <= 1 or not os.path.exists(path):
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        return [line for line in file if line.endswith("\n") and 0 <= _step_of(line) < step]


def _step_of(line: str) -> int:
    """-1: it tells none."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return -1
