"""What a training records of its steps: lines of JSON beside the adapter, and TensorBoard's events if asked for."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

from .loop import Step
from .samples import Sample

__all__ = ["Records"]

logger = logging.getLogger("lyco")


class Records:
    """A line of JSON a step. What cannot be written is told once and ends nothing."""

    def __init__(self, path: str, logging_dir: str, log_prefix: str) -> None:
        """`logging_dir`: where a folder of TensorBoard's events comes, named as Musubi's; empty: nowhere."""
        self._path, self._events = path, _events(logging_dir, log_prefix) if logging_dir else None
        self._begun = self._failed = False

    def add(self, step: Step, epoch: int) -> None:
        """Record a step. Of an earlier run the lines before the first step of this one are kept."""
        told = {"step": step.step, "epoch": epoch, "loss": step.loss, "learning_rate": step.learning_rate}
        told |= {"grad_norm": step.grad_norm, "time": round(time.time(), 3)}
        if step.validation is not None:
            told["validation"] = step.validation
        for tag, name in _TAGS.items():
            if self._events is not None and name in told:
                self._events.add_scalar(tag, told[name], step.step)
        if not self._failed:
            self._write(json.dumps(told) + "\n", step.step)

    def sampled(self, sample: Sample) -> None:
        """Record a sample: a line of its own, whose file is named from the record's folder on."""
        file = os.path.relpath(sample.path, os.path.dirname(self._path)).replace(os.sep, "/")
        told = {"step": sample.step, "sample": file, "prompt": sample.prompt, "seed": sample.seed}
        if self._events is not None:  # of a video, what is in its middle
            middle = sample.frames[len(sample.frames) // 2]
            self._events.add_image(f"sample/{sample.number:02d}", middle, sample.step, dataformats="HWC")
        if not self._failed:
            self._write(json.dumps(told) + "\n", sample.step)

    def close(self) -> None:
        """Let what is buffered reach the disk."""
        if self._events is not None:
            self._events.close()

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
"""TensorBoard's name -> that of a line."""


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


def _events(logging_dir: str, log_prefix: str) -> Any:  # noqa: ANN401 - TensorBoard's writer
    try:
        from torch.utils.tensorboard import SummaryWriter as writer
    except ImportError:
        logger.warning("logging_dir needs tensorboard: pip install tensorboard; until then only NAME.jsonl is written")
        return None
    return writer(os.path.join(logging_dir, log_prefix + time.strftime("%Y%m%d%H%M%S")))
