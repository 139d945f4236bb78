"""ComfyUI's own package for quantized weights, comfy-kitchen, and what the forms that it reads and writes share.

It is there wherever ComfyUI is, and imported when a file has such a weight.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
from typing import Any, ClassVar

from torch import Tensor

from .form import Form

__all__ = ["KitchenForm", "find_kitchen", "in_torch"]


@functools.cache
def find_kitchen() -> Any:  # noqa: ANN401 - a package without types
    """The comfy-kitchen package; None where it is not installed."""
    try:
        return importlib.import_module("comfy_kitchen")
    except ImportError:
        return None


def in_torch() -> contextlib.AbstractContextManager[None]:
    """A context in which comfy-kitchen computes in plain torch.

    Its CUDA kernels for NVFP4 and MXFP8 offer float32, and refuse it.
    """
    kitchen = find_kitchen()
    return contextlib.nullcontext() if kitchen is None else kitchen.use_backend("eager")


@dataclasses.dataclass(frozen=True)
class KitchenForm(Form):
    """A form that two functions of the package make numbers of, and make of numbers."""

    reads: ClassVar[str]
    writes: ClassVar[str]

    @property
    def unavailable(self) -> str | None:
        kitchen = find_kitchen()
        if kitchen is None:
            return "for which comfy-kitchen is needed: use the Python that ComfyUI runs on"
        if not hasattr(kitchen, self.reads) or not hasattr(kitchen, self.writes):
            return "which this comfy-kitchen does not know: update ComfyUI"
        return None

    def _numbers(self, *args: object, **more: object) -> Tensor:
        """What the package reads, without the columns that fill it up."""
        values: Tensor = getattr(find_kitchen(), self.reads)(*args, **more)
        return values if values.shape[1] == self.columns else values[:, : self.columns].contiguous()

    def _rounded(self, *args: object, **more: object) -> tuple[Tensor, ...]:
        return getattr(find_kitchen(), self.writes)(*args, **more)
