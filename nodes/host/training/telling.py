"""What a training in the graph reports while it goes on and when it ends: loss, time left, what was saved."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import comfy.model_management

from ....lyco_core.console import clock
from ....lyco_core.train.estimate import Estimate
from ....lyco_core.train.loop import Step, Training
from ....lyco_core.train.samples import Sample
from ....lyco_core.train.training_files import Saved
from ..progress import Progress
from .as_page import event, sample_files, saved_files, thinned
from .means import mean_line, recent
from .samples import Sampling

EVENT = "lyco.train"
"""What the web extension listens to."""

NEEDS = "lyco.needs"
"""Tells it how much memory a training needs, before the model is loaded."""

SECONDS = 0.25
"""The least time between two messages."""

_last: dict[str, Any] = {}
"""The training that goes on, else the one that ended last: for a page that was opened since.

Replaced, never changed: the thread that trains writes it, the server's reads it.
"""


def last_training() -> dict[str, Any]:
    """The event of everything so far of the training that goes on, or of the last one; empty if there was none.

    With it, what it was asked by: `prompt`, and `workflow` if a page sent it.
    """
    last = _last
    return last | {"steps": thinned(last["steps"])} if last else {}


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a node was run by, as ComfyUI's hidden inputs have it."""

    node: str
    prompt: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] | None = None

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The values of the node's inputs."""
        return (self.prompt or {}).get(self.node, {}).get("inputs", {})

    @property
    def workflow(self) -> str | None:
        """The id of the page's workflow."""
        return ((self.extra or {}).get("workflow") or {}).get("id")


class Telling:
    """`run.Tell` for a node; raises ComfyUI's exception once the person interrupts.

    Its end is told too, since ComfyUI drops what a node that was interrupted would give out. A training that made
    no step is as if it had not been.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked, self._progress = asked, Progress()
        self._losses: list[float] = []
        self._pending: list[Step] = []
        self._begun: tuple[int, float] | None = None
        self._sent = 0.0
        self._saved: Saved | None = None
        self.samples: list[dict[str, Any]] = []
        """Every file of a sample, as ComfyUI's pages name pictures and sounds."""
        self._new: list[dict[str, Any]] = []
        self._unsampled: dict[str, Any] | None = None
        self._message: dict[str, Any] = {}
        self._needs: dict[str, Any] | None = None

    def __enter__(self) -> Telling:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if not self._message:
            return
        interrupted = isinstance(error, comfy.model_management.InterruptProcessingException)
        end = "stopped" if interrupted else "failed" if error else "finished"
        self._send({"seconds_left": None, "end": end, "saved": self._saved and saved_files(self._saved)})

    def __call__(self, training: Training, step: Step, saved: Sequence[str]) -> None:
        now = time.monotonic()
        self._begun = self._begun or (step.step, now)
        self._losses.append(step.loss)
        self._pending.append(step)
        total = training.total_steps
        if saved or step.step == total or step.validation is not None or now - self._sent > SECONDS:
            left = self._left(step, total, now)
            self._send({"total": total, "steps_per_epoch": training.steps_per_epoch, "seconds_left": left})
            self._sent = now
            text = f"step {step.step} of {total}, {mean_line(recent(self._losses))}"
            self._say(text if left is None else f"{text}, {clock(left)} left")
        self._progress(step.step, total)

    def needs(self, estimate: Estimate) -> None:
        """Tell how much memory a step takes."""
        self._needs = dataclasses.asdict(estimate) | {"total": estimate.total}
        server = _server()
        if server is not None:
            server.send_sync(NEEDS, {"node": self._asked.node, "needs": self._needs}, server.client_id)
        self._say(estimate.line())

    def following(self, sampling: Sampling) -> Sampling:
        """`sampling`, of whose samples this tells, and which a person can interrupt."""
        check = comfy.model_management.throw_exception_if_processing_interrupted
        return dataclasses.replace(sampling, told=self._sampled, failed=self._failed, check=check)

    def _sampled(self, sample: Sample) -> None:
        """Tell of a sample."""
        named = sample_files(sample)
        self.samples += named
        self._new += named
        self._tell_unsampled(None)

    def _failed(self, step: int, why: str) -> None:
        """Tell why there are no samples."""
        self._tell_unsampled({"step": step, "why": why})

    def _tell_unsampled(self, unsampled: dict[str, Any] | None) -> None:
        """Tell what is new of samples; before the first step, that tells it."""
        self._unsampled = unsampled
        if self._message:
            self._send({})

    def saved(self, saved: Saved) -> None:
        """Remember what was written last."""
        self._saved = saved

    def ended(self) -> dict[str, Any]:
        """The last message without its steps."""
        told = {name: value for name, value in self._message.items() if name != "steps"}
        return told | {"samples": self.samples}

    def _left(self, step: Step, total: int, now: float) -> float | None:
        """Seconds until the end, from the second step on."""
        first, begun = self._begun or (step.step, now)
        return None if step.step == first else (now - begun) / (step.step - first) * (total - step.step)

    def _send(self, news: dict[str, Any]) -> None:
        """Tell `news`, the mean, and the steps that are not told yet."""
        global _last
        server = _server()
        told, self._pending = [event(step) for step in self._pending], []
        goes_on = self._message or self._goes_on()
        before, samples = (_last["steps"], _last["samples"]) if goes_on else ([], [])
        new, self._new = self._new, []
        if not self._message:
            before = [step for step in before if step["step"] < told[0]["step"]]
        mean = recent(self._losses)
        self._message |= {
            "node": self._asked.node,
            "run": getattr(server, "last_prompt_id", None),
            "loss": mean.value,
            "mean_of": mean.steps,
            "needs": self._needs,
            "unsampled": self._unsampled,
            **news,
            "steps": told,
            "samples": new,
        }
        asked = {"prompt": self._asked.prompt, "workflow": self._asked.workflow}
        _last = asked | self._message | {"steps": before + told, "samples": samples + new}
        if server is not None:
            server.send_sync(EVENT, dict(self._message), server.client_id)

    def _goes_on(self) -> bool:
        """Whether this begins at the state that the last training saved, so that both are one curve."""
        state = (_last.get("saved") or {}).get("state")
        return bool(state) and self._asked.inputs.get("resume") == state

    def _say(self, text: str) -> None:
        server = _server()
        if server is not None:
            server.send_progress_text(text, self._asked.node, server.client_id)


def _server() -> Any:
    from server import PromptServer

    return getattr(PromptServer, "instance", None)
