"""The three sets of module names that a model's weights go by."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["BIAS", "LAYOUTS", "NAMES", "OWN_PARAMETERS", "Layout", "parameter_of"]

Layout = Literal["musubi", "comfyui", "diffusers"]
"""Musubi Tuner's model code, ComfyUI's, Hugging Face diffusers'."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

NAMES: dict[Layout, str] = {"musubi": "Musubi's names", "comfyui": "ComfyUI's names", "diffusers": "diffusers' names"}
"""Layout -> how a person reads whose names those are."""

BIAS = ".bias"
"""Ends the path of a module's bias; the path of a module alone means its weight."""


OWN_PARAMETERS = (".modulation", ".scale_shift_table")
"""What ends the name of a parameter that is neither the weight nor the bias of a module."""


def parameter_of(path: str) -> tuple[str, str]:
    """(module path, `.weight` or `.bias`) of what an adapter changes; (its name, nothing) of another parameter."""
    if path.endswith(OWN_PARAMETERS):
        return path, ""
    return (path.removesuffix(BIAS), BIAS) if path.endswith(BIAS) else (path, ".weight")
