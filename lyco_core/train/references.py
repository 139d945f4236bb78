"""Edit models: which read control images, how many, and by which of ComfyUI's nodes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

from ..errors import TrainError, about_file
from ..model import Model
from .dataset import Dataset, media_of

__all__ = ["EDITIONS", "References", "references_of", "require_controls"]

logger = logging.getLogger("lyco")


@dataclasses.dataclass(frozen=True)
class References:
    """How a model reads control images: as latents beside the noise."""

    title: str
    most: int | None = None
    """How many it reads at most; None: any number."""
    all: bool = False
    """Whether each item has to have one where any has."""
    node: str = ""
    """ComfyUI's node by which the text encoder sees them too, beside the caption; empty: it reads the caption alone."""
    method: str = ""
    """ComfyUI's `reference_latents_method`; empty: the model's own."""
    layers: bool = False
    """Whether it reads no control, but the picture itself, of which it makes the layers."""
    whole: bool = True
    """Whether the whole picture is learned before its layers."""
    pixels: bool = False
    """Whether it reads the control images themselves, which ComfyUI's node for it scales by its own rule."""


_PLUS = "TextEncodeQwenImageEditPlus"

_MARK = "__index_timestep_zero__"
"""What a file of Qwen-Image-Edit-2511 has, for ComfyUI to know it by."""

EDITIONS = {
    "edit": References("Qwen-Image-Edit", 1, node="TextEncodeQwenImageEdit"),
    "edit-2509": References("Qwen-Image-Edit-2509", 3, node=_PLUS),
    "edit-2511": References("Qwen-Image-Edit-2511", 3, node=_PLUS, method="index_timestep_zero"),
}
"""`model_version` -> how that edition of Qwen-Image reads control images. Their weights have the same names."""

_FAMILIES = {
    "flux1": References("FLUX.1 Kontext", 1, all=True),
    "flux2": References("FLUX.2"),
    "hidream_o1": References("HiDream-O1", 10, pixels=True),
}
"""Architecture -> how its models read control images, where all read them in one way."""


def require_controls(
    weights: Model, datasets: Sequence[Dataset], version: str = "", *, edits: bool = False, task: str = ""
) -> References | None:
    """How a model reads the control images of the datasets; None if there are none.

    Args:
        version: `model_version`, as Musubi has it.
        edits: whether the model is known to be for editing, and a person to be told of images without controls.
        task: as a command of Musubi's has it.

    Raises:
        TrainError: the model reads none, or not so many, or the task says otherwise; or a dataset cannot be read.
    """
    pictures = [media for dataset in datasets if not dataset.is_video for media in media_of(dataset)]
    without = [media.path for media in pictures if not media.controls]
    if len(without) == len(pictures):
        if task == "i2i":
            raise TrainError(
                "task is i2i, and no image has a control image; give the dataset a control_directory, or take task t2i"
            )
        if pictures and (edits or version in EDITIONS):
            logger.warning("no image has a control image, so the edit model is trained as one of text to image")
        return None
    if task == "t2i":
        raise TrainError("task is t2i, and there are control images; take task i2i, or take out control_directory")
    found = references_of(weights, version)
    for media in pictures:
        if found.most is not None and len(media.controls) > found.most:
            more = "; model_version edit-2509 and edit-2511 read three" if found is EDITIONS["edit"] else ""
            with about_file(media.path):
                raise TrainError(
                    f"has {len(media.controls)} control images, and {found.title} reads at most {found.most}; take "
                    f"the others away{more}"
                )
    if without and found.all:
        with about_file(without[0]):
            raise TrainError(
                f"has no control image ({len(without)} of {len(pictures)} images have none, the others do); give one "
                "to each, or put those without into a training of their own"
            )
    if without:
        logger.warning(
            "%d of %d images have no control image: they are trained as text to image", len(without), len(pictures)
        )
    return found


def references_of(weights: Model, version: str) -> References:
    """How a model reads control images. Raises `TrainError` if it reads none, or if it is not known how."""
    family = weights.architecture
    name, title = (family.id, family.title) if family else ("", "the model")
    if name in _FAMILIES:
        return _FAMILIES[name]
    if name != "qwen_image":
        raise TrainError(
            f"there are control images and {title} reads none: take out control_directory, control_path or a prompt's "
            "control_image_path, or train FLUX.1 Kontext, FLUX.2, HiDream-O1 or Qwen-Image-Edit; what reads an image "
            "in another way is trained in the graph, with its own conditioning"
        )
    marked = f"{weights.prefix}{_MARK}" in weights.shapes
    version = version or ("edit-2511" if marked else "")
    if version not in EDITIONS:
        raise TrainError(
            f"there are control images and model_version is {version or 'not given'}: Qwen-Image and its edit "
            "models cannot be told apart by their weights; give model_version to lyco train, one of "
            f"{', '.join(EDITIONS)}"
        )
    if marked and version != "edit-2511":
        raise TrainError(
            f"model_version is {version}, and the model's file says that it is edit-2511 ({_MARK}); give model_version "
            "edit-2511"
        )
    return EDITIONS[version]
