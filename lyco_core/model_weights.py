"""A model's weights by key and shape, and whose names they are."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from .architectures import Architecture, recognise
from .errors import about_file
from .io import Checkpoint
from .layouts import Layout
from .quantized import Quantization, find_forms

__all__ = ["ModelWeights", "describe_checkpoint", "describe_weights", "outline_checkpoint"]

_PREFIXES = ("diffusion_model.", "model.diffusion_model.", "transformer.", "")


@dataclasses.dataclass(frozen=True)
class ModelWeights:
    """What of a model decides where adapters go."""

    shapes: Mapping[str, tuple[int, ...]]
    """Key -> shape of everything in the model."""
    prefix: str
    """What the keys of its diffusion model begin with."""
    architecture: Architecture | None
    layout: Layout
    """Whose names they are; `comfyui` where the architecture is unknown."""

    @property
    def paths(self) -> set[str]:
        """Module paths of the weights of the diffusion model."""
        return module_paths(self.shapes, self.prefix)


def module_paths(keys: Mapping[str, object], prefix: str) -> set[str]:
    """`prefix` + path + `.weight` -> path, for every key of that form."""
    return {k[len(prefix) : -len(".weight")] for k in keys if k.startswith(prefix) and k.endswith(".weight")}


def describe_weights(shapes: Mapping[str, tuple[int, ...]]) -> ModelWeights:
    """Tell a model's architecture, layout and prefix from its keys."""
    prefix = next(p for p in _PREFIXES if any(key.startswith(p) for key in shapes) or not p)
    found = recognise(module_paths(shapes, prefix))
    architecture, layout = found if found else (None, "comfyui")
    return ModelWeights(shapes, prefix, architecture, layout)


def describe_checkpoint(checkpoint: Checkpoint) -> tuple[ModelWeights, Quantization]:
    """Describe an open checkpoint's weights, packed ones by the shapes that they stand for; and their forms.

    Raises:
        FileError: what the file says of its formats is damaged.
    """
    stored = describe_weights(checkpoint.shapes)
    quantization = find_forms(checkpoint, stored.prefix)
    return dataclasses.replace(stored, shapes=quantization.shapes(stored.shapes)), quantization


def outline_checkpoint(path: str | os.PathLike[str]) -> ModelWeights:
    """Describe the weights of a checkpoint, or of all its shards, from headers and what they say of formats.

    Raises:
        FileError: it is not a readable checkpoint.
    """
    with Checkpoint(path) as checkpoint, about_file(path):
        return describe_checkpoint(checkpoint)[0]
