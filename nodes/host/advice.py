"""What to do about the core's errors, by the inputs of each node, as ComfyUI shows them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...lyco_core.errors import LycoError, Remedy, advising

if TYPE_CHECKING:
    from comfy_api.latest import io

LOAD = {
    Remedy.LEAVE_OUT: "set on_partial_match to warn to apply the rest, or leave these out by this line in exclude: {}",
}
HOOK = TRY_FILES = {
    Remedy.LEAVE_OUT: "set on_partial_match to warn to apply the rest",
}
LOAD_ROWS = {
    Remedy.LEAVE_OUT: (
        "set on_partial_match to warn to apply the rest, or load this file with Load LoHa/LoKr and leave these out by "
        "this line in its exclude: {}"
    ),
}
MERGE_MODEL = {
    Remedy.LEAVE_OUT: "set on_partial_match to warn to merge the rest, or leave these out by this line in exclude: {}",
    Remedy.WIDER_DTYPE: "lower the strength, or use Merge into Checkpoint File with dtype bfloat16",
}
_NEW_FILE = {
    Remedy.OVERWRITE: "choose another filename, or switch overwrite on",
}
MERGE_FILE = _NEW_FILE | {
    Remedy.LEAVE_OUT: MERGE_MODEL[Remedy.LEAVE_OUT],
    Remedy.WIDER_DTYPE: "set dtype to bfloat16",
    Remedy.OWN_DTYPE: "set dtype to as it is",
    Remedy.UNQUANTIZED: "set quantize to as it is",
    Remedy.PROCESSOR: "switch gpu off",
    Remedy.ARCHITECTURE: "name it on the command line: lyco merge --architecture",
    Remedy.UNMERGED: (
        "merge into the bf16, fp16 or fp8 checkpoint that it was made from and quantize the result, or load the "
        "adapter with Load LoHa/LoKr"
    ),
}
EXTRACT = RESIZE = _NEW_FILE | {
    Remedy.RANK: "set by to rank",
}
CONVERT = _NEW_FILE | {
    Remedy.ARCHITECTURE: "name it on the command line: lyco convert --architecture",
    Remedy.AS_LORA: "set form to lora",
    Remedy.RANK: "set a rank",
    Remedy.AS_IT_IS: "set dtype to as it is",
    Remedy.LAYOUT: "set to to {}",
    Remedy.EXCLUDE: 'leave these out on the command line: lyco convert --exclude "{}"',
    Remedy.OTHER_LAYOUT: "set to to {}, which have a place for them",
}
STOCK_COPY = {
    Remedy.OVERWRITE: "choose it in the other loader, or move it away and save the copy anew",
    Remedy.ARCHITECTURE: CONVERT[Remedy.ARCHITECTURE],
    Remedy.AS_LORA: "use Convert Musubi→Diffusers with to comfyui and form lora",
    Remedy.EXCLUDE: CONVERT[Remedy.EXCLUDE],
    Remedy.OTHER_LAYOUT: "load it with Load LoHa/LoKr",
    Remedy.APPLY: "load it with Load LoHa/LoKr, or merge it into the model's file",
}
COMBINE = _NEW_FILE | {
    Remedy.ARCHITECTURE: "name it on the command line: lyco combine --architecture",
    Remedy.AS_LORA: "set form to lora",
    Remedy.RANK: "set a rank",
    Remedy.SMALLNESS: "set a rank",
    Remedy.AS_IT_IS: "set dtype to as it is",
    Remedy.LAYOUT: "set to to {}",
    Remedy.EXCLUDE: 'leave these out on the command line: lyco combine --exclude "{}"',
    Remedy.BASE: "choose the checkpoint that they were trained on as base",
}
SAVE_BLOCKS = {
    Remedy.ARCHITECTURE: COMBINE[Remedy.ARCHITECTURE],
    Remedy.BASE: "name the checkpoint on the command line: lyco combine --base --block-strength",
    Remedy.EXCLUDE: "leave these out by this line in exclude: {}",
}
COMPARE = {
    Remedy.ARCHITECTURE: "name it on the command line: lyco compare --architecture",
    Remedy.BASE: COMBINE[Remedy.BASE],
}
INSPECT = {
    Remedy.ARCHITECTURE: "connect a model",
}


def acting(advice: Mapping[Remedy, str] | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator of a node's `execute`: numbers that are not finite are refused, and errors end in their `advice`."""

    def decorate(execute: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(execute)
        def act(cls: type[io.ComfyNode], *inputs: Any, **named: Any) -> Any:
            try:
                with advising(advice or {}):
                    require_finite(named)
                    return execute(cls, *inputs, **named)
            except LycoError as error:
                error.__class__ = _said_by(cls.define_schema().display_name, type(error))
                raise

        return act

    return decorate


def _said_by(node: str, kind: type[LycoError]) -> type[LycoError]:
    """The same kind of error under the name of a node: ComfyUI says an error's class, and then what it says."""
    named = type(node, (kind,), {})
    named.__module__ = "builtins"  # which it leaves out
    return named


def require_finite(inputs: Mapping[str, object]) -> None:
    """Raise `LycoError` for NaN or infinity, which ComfyUI takes for numbers between any bounds."""
    for name, value in inputs.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise LycoError(f"{name} is {value}, expected a finite number")
