"""What a training without a server says on the terminal: after each step, of each file, and what to do after a stop."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence

from ..lyco_core.console import clear_line, clock, show_line
from ..lyco_core.train.distributed import World
from ..lyco_core.train.loop import Step, Training
from ..lyco_core.train.samples import Sample
from ..lyco_core.train.training_files import Saved

log = logging.getLogger("lyco")

EVERY = 100
"""Steps between two lines where there is no terminal, whose one line is rewritten."""


class Stopped(BaseException):
    """A person, or the machine, asked for an end."""


class Terminal:
    """`run.Tell` for a terminal, or for the file that a shell writes instead of one."""

    def __init__(self, world: World, signals: Sequence[int]) -> None:
        self._world, self._signals = world, signals
        self._losses: list[float] = []
        self._begun: tuple[int, float] | None = None

    def __call__(self, training: Training, step: Step, saved: Sequence[str]) -> None:
        if self._world.any(bool(self._signals)):
            raise Stopped
        if not self._world.writes:
            return
        now = time.monotonic()
        self._begun = self._begun or (step.step, now)
        self._losses.append(step.loss)
        total, tried = training.total_steps, step.validation is not None
        text = self._line(step, total, now)
        if not sys.stderr.isatty():
            if tried or saved or step.step % EVERY == 0 or step.step == total:
                log.info("%s", text)
        elif tried or step.step == total:  # which stays
            clear_line(sys.stderr)
            log.info("%s", text)
        else:
            show_line("", text, sys.stderr)

    def saved(self, saved: Saved) -> None:
        """Name a file that was written."""
        clear_line(sys.stderr)
        log.info("saved %s", os.path.abspath(saved.state or saved.adapter))

    def sampled(self, sample: Sample) -> None:
        """Name a sample that was made."""
        clear_line(sys.stderr)
        for path in sample.paths:
            log.info("sample %s", os.path.abspath(path))

    def between(self) -> None:
        """Between two steps of a sampler: one process may stop there, several only together, after the next step."""
        if self._signals and self._world.processes == 1:
            raise Stopped

    def _line(self, step: Step, total: int, now: float) -> str:
        from .host.training.means import mean_line, recent

        first, begun = self._begun or (step.step, now)
        text = f"step {step.step} of {total}, {mean_line(recent(self._losses))}"
        if step.validation is not None:
            text += f", validation {step.validation:.4f}"
        if first < step.step < total:
            pace = (now - begun) / (step.step - first)
            text += f", {pace:.2f} s a step, {clock(pace * (total - step.step))} left"
        return text


def newest_state(folder: str, output_name: str) -> str | None:
    """The path of the state that a training would go on from; None if there is none."""
    from ..lyco_core.train.training_files import files_of

    try:
        states = [os.path.join(folder, name) for name in files_of(folder, output_name) if name.endswith(".pt")]
    except OSError:  # the folder is not made yet
        return None
    return max(states, key=os.path.getmtime, default=None)
