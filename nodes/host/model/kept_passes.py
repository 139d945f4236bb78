"""What a model keeps from one pass to the next, though weights made it that an adapter changes.

HiDream-O1 keeps the keys and values of a caption, and finds them again by the caption and the picture's size alone: of
another adapter, or of this one at another strength, they would be taken for its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy.patcher_extension import CallbacksMP, WrappersMP, add_wrapper_with_key
from torch import nn

from ..protocols import ModelPatcher

KEY = "lyco_kept_passes"


def forgetting(model: nn.Module) -> Callable[[], None] | None:
    """What has a model of ComfyUI's forget its passes; None for one that keeps nothing of them."""
    return getattr(getattr(model, "diffusion_model", None), "clear_kv_cache", None)


def forget(model: nn.Module) -> None:
    """Have a model forget its passes, if it keeps any."""
    if (clear := forgetting(model)) is not None:
        clear()


def forget_around(patched: ModelPatcher) -> None:
    """Have a clone whose weights stay as they are forget at both ends of every sampling."""
    if forgetting(patched.model) is not None:
        for moment in (CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_CLEANUP):
            patched.remove_callbacks_with_key(moment, KEY)
            patched.add_callback_with_key(moment, KEY, lambda patcher: forget(patcher.model))


def forget_each_pass(patched: ModelPatcher, options: dict[str, Any] | None = None) -> None:
    """Have a clone, or a sampling with these options, forget before and after each pass: its weights change between."""
    if forgetting(patched.model) is None:
        return
    if options is None:
        patched.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _pass)
    elif KEY not in options["transformer_options"].get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}):
        add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _pass, options, is_model_options=True)


def _pass(executor: Any, *args: Any, **named: Any) -> Any:
    forget(executor.class_obj)
    try:
        return executor(*args, **named)
    finally:
        forget(executor.class_obj)
