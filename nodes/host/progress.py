"""ComfyUI's progress bar and its interruption, for work of ours that reports how far it is."""

from __future__ import annotations

import comfy.model_management
import comfy.utils


class Progress:
    """Called with what is done and the total; raises ComfyUI's exception once the person interrupts."""

    def __init__(self) -> None:
        self._bar: comfy.utils.ProgressBar | None = None

    def __call__(self, done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar = self._bar = self._bar or comfy.utils.ProgressBar(total)
        bar.update_absolute(done, total)
