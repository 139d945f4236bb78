"""The three sets of module names that a model's weights go by."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["LAYOUTS", "Layout"]

Layout = Literal["musubi", "comfyui", "diffusers"]
"""Musubi Tuner's model code, ComfyUI's, Hugging Face diffusers'."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
