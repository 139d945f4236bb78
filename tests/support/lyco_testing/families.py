"""The modules of full-size models of families that Musubi does not train, in every layout."""

import functools
import math

import pytest
from torch import nn

from lyco_core.architectures import ARCHITECTURES, Architecture
from lyco_core.layouts import Layout

from .tables import OTHERS, weights

EMBEDDINGS = {
    "cond_type_embedding",
    "diffusion_transformer.timestep_features",
    "embed_image_indicator",
    "language_model.embed_tokens",
    "llm_adapter.embed",
    "lyric_embs",
    "trainable_cond_mask",
    "visual.pos_embed",
}
"""Tables that are looked up in, and frequencies: nobody trains them with low-rank factors."""


def family_of(model: str) -> Architecture:
    return ARCHITECTURES[OTHERS[model]]


@functools.cache
def paths_of(model: str) -> set[str]:
    """Module paths of ComfyUI's model."""
    return {key.removeprefix("diffusion_model.").removesuffix(".weight") for key in weights(model)}


@functools.cache
def shapes_of(model: str) -> dict[str, tuple[int, ...]]:
    """Module path in ComfyUI's layout -> shape."""
    found = {k.removeprefix("diffusion_model.").removesuffix(".weight"): s for k, s in weights(model).items()}
    return {path: shape for path, shape in found.items() if path not in EMBEDDINGS}


@functools.cache
def renamed(model: str, layout: Layout) -> dict[str, tuple[int, int]]:
    """The same modules in a layout, (out, in) each; what ComfyUI fuses comes apart."""
    made: dict[str, tuple[int, int]] = {}
    for path, (height, *columns) in shapes_of(model).items():
        for target in family_of(model).locate(path, "comfyui", layout, (height, math.prod(columns))):
            start, stop, total = target.source
            assert height % total == 0
            assert target.rows == (0, target.rows[2], target.rows[2]), "no layout fuses what ComfyUI keeps apart"
            assert target.path not in made
            made[target.path] = height * (stop - start) // total, math.prod(columns)
    return made


def without_numbers(patch: pytest.MonkeyPatch) -> None:
    """Let models be built of shapes alone: to draw their numbers takes most of the time, on the meta device too."""
    for layer in (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Conv2d, nn.Conv3d):
        patch.setattr(layer, "reset_parameters", lambda self: None)
