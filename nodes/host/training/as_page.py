"""What a training makes, as the web extension takes it: steps, saved files, samples."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import folder_paths

from ....lyco_core.train.loop import Step
from ....lyco_core.train.samples import Sample
from ....lyco_core.train.training_files import Saved
from .widgets import state_path

MOST_POINTS = 2000
"""How many steps of a finished curve are kept at most; a card is some hundred pixels wide."""


def saved_files(saved: Saved) -> dict[str, Any]:
    """The files of a save as the web extension takes them: names, and the folder if that is not output/loras."""
    folder, name = os.path.split(saved.adapter)
    state = saved.state and os.path.basename(saved.state)
    usual = os.path.dirname(state_path(""))
    return {
        "step": saved.step,
        "adapter": name,
        "state": state,
        "folder": None if os.path.abspath(folder) == os.path.abspath(usual) else folder,
    }


def sample_files(sample: Sample) -> list[dict[str, Any]]:
    """The files of a sample as the page asks for them, and what they were made of."""
    told = {"step": sample.step, "number": sample.number, "prompt": sample.prompt, "seed": sample.seed}
    return [_place(path) | told | {"layer": layer} for layer, path in enumerate(sample.paths)]


def _place(path: str) -> dict[str, str]:
    folder, name = os.path.split(os.path.abspath(path))
    inside = os.path.relpath(folder, folder_paths.get_output_directory()).replace(os.sep, "/")
    return {"filename": name, "subfolder": inside, "type": "output"}


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
    return thinned([event(step) for step in steps])


def thinned(steps: Sequence[dict[str, float | None]]) -> list[dict[str, float | None]]:
    """About `MOST_POINTS` of some steps, and every validation."""
    every = max(1, -(-len(steps) // MOST_POINTS))
    last = len(steps) - 1
    return [step for n, step in enumerate(steps) if n % every == 0 or n == last or step["validation"] is not None]
