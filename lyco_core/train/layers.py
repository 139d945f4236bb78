"""Qwen-Image-Layered: pictures that are trained together with the layers that they are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..errors import TrainError, about_file
from ..model import Model
from .control_videos import require_own_size
from .dataset import Dataset, media_of
from .references import References

__all__ = ["LAYERED", "is_layered", "require_layers"]

_MARK = "time_text_embed.addition_t_embedding.weight"
"""What a file of Qwen-Image-Layered has, for ComfyUI to know it by."""

LAYERED = References("Qwen-Image-Layered", 1, layers=True)
"""The whole picture is its reference, as ComfyUI's workflow of the model has it."""


def is_layered(weights: Model) -> bool:
    """Whether a model takes a picture apart."""
    return f"{weights.prefix}{_MARK}" in weights.shapes


def require_layers(
    weights: Model, datasets: Sequence[Dataset], version: str, *, first_removed: bool = False
) -> References | None:
    """How a model reads the whole picture beside its layers; None if it is none of layers, and no dataset has any.

    Args:
        version: `model_version`, as Musubi has it.
        first_removed: `remove_first_image_from_target`, as Musubi has it.

    Raises:
        TrainError: the model, the version and the datasets are not all of layers, or a dataset cannot be read.
    """
    if not is_layered(weights):
        if version == "layered":
            raise TrainError(f"model_version is layered, and the model's file has no {_MARK}; name that of Layered")
        if layered := next((dataset for dataset in datasets if dataset.multiple_target), None):
            raise TrainError(
                f"{layered.source}: multiple_target is for Qwen-Image-Layered, which the model is not; take it out"
            )
        if first_removed:
            raise TrainError("remove_first_image_from_target is for Qwen-Image-Layered alone; take it out")
        return None
    if version not in ("", "layered"):
        raise TrainError(
            f"model_version is {version}, and the model's file says that it is layered; name another of the two"
        )
    for dataset in datasets:
        media = media_of(dataset)
        if not dataset.multiple_target:
            raise TrainError(
                f"{dataset.source}: Qwen-Image-Layered is trained on pictures with their layers; give multiple_target"
            )
        require_own_size(dataset, "layers lie over their picture")
        for one in media:
            with about_file(one.path):
                if one.controls:
                    raise TrainError("has control images, and the model reads the picture itself; take them out")
                if not one.layers:
                    raise TrainError("has no layers; put them beside it: NAME_1, NAME_2 (in a list image_path_1 …)")
    return dataclasses.replace(LAYERED, whole=not first_removed)
