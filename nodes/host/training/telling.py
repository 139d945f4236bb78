"""What a training in the graph reports while it goes on: progress, loss, time left."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from ....lyco_core.train.loop import Step, Training
from ..progress import Progress
from .picture import smoothed

EVENT = "lyco.train"
"""What the web extension listens to."""

SECONDS = 0.25
"""The least time between two messages."""

MOST_POINTS = 2000
"""How many steps of a finished curve are kept at most; a card is some hundred pixels wide."""

_running: dict[str, Any] = {}
"""The training that goes on, for a page that was opened meanwhile."""


def running() -> dict[str, Any]:
    """The event of everything so far of the training that goes on; empty if none does."""
    return dict(_running)


class Telling:
    """`run.Tell` for a node; raises ComfyUI's exception once the person interrupts."""

    def __init__(self, node: str) -> None:
        self._node, self._progress = node, Progress()
        self._losses: list[float] = []
        self._pending: list[Step] = []
        self._begun: tuple[int, float] | None = None
        self._sent = 0.0
        _running.clear()

    def __enter__(self) -> Telling:
        return self

    def __exit__(self, *_: object) -> None:
        _running.clear()

    def __call__(self, training: Training, step: Step, saved: Sequence[str]) -> None:
        now = time.monotonic()
        self._begun = self._begun or (step.step, now)
        self._losses.append(step.loss)
        self._pending.append(step)
        total = training.total_steps
        if saved or step.step == total or step.validation is not None or now - self._sent > SECONDS:
            self._send(total, self._left(step, total, now))
            self._sent = now
        self._progress(step.step, total)

    def _left(self, step: Step, total: int, now: float) -> float | None:
        """Seconds until the end, from the second step on."""
        first, begun = self._begun or (step.step, now)
        return None if step.step == first else (now - begun) / (step.step - first) * (total - step.step)

    def _send(self, total: int, left: float | None) -> None:
        from server import PromptServer

        server = getattr(PromptServer, "instance", None)
        if server is None:
            return
        average = smoothed(self._losses[-200:])[-1]
        steps, self._pending = self._pending, []
        message = {"node": self._node, "total": total, "seconds_left": left, "steps": [event(step) for step in steps]}
        _running.update(message | {"steps": _running.get("steps", [])})
        _running["steps"].extend(message["steps"])
        server.send_sync(EVENT, message, server.client_id)
        text = f"step {steps[-1].step} of {total}, loss {average:.4f}" + (
            "" if left is None else f", {clock(left)} left"
        )
        server.send_progress_text(text, self._node, server.client_id)


def event(step: Step) -> dict[str, float | None]:
    """A step as the web extension takes it."""
    return {
        "step": step.step,
        "loss": step.loss,
        "learning_rate": step.learning_rate,
        # What is no number, the page's JSON cannot hold.
        "validation": step.validation if step.validation is not None and math.isfinite(step.validation) else None,
    }


def series(steps: Sequence[Step]) -> list[dict[str, float | None]]:
    """A whole training as the web extension takes it: about `MOST_POINTS` of its steps, and every validation.

    ComfyUI keeps it, and sends it again with every later prompt that has the node.
    """
    every = max(1, -(-len(steps) // MOST_POINTS))
    last = len(steps) - 1
    return [event(step) for n, step in enumerate(steps) if n % every == 0 or n == last or step.validation is not None]


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
