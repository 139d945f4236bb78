"""Models that take an image beside the text: without one they would be trained on zeros."""

from __future__ import annotations

import math

from ..model import Model

__all__ = ["image_input"]


def image_input(weights: Model) -> str | None:
    """What ComfyUI's conditioning calls the image that a model reads beside the noise, or None if it reads none.

    A model that reads more numbers of a patch than it writes is one: Wan's image to video and
    Fun-Control, FLUX.1 Fill, Depth and Canny, HunyuanVideo's image to video.
    """
    family = weights.architecture
    if family is None or family.training is None or (reading := family.training.image_input) is None:
        return None
    for module, image in reading.by_itself.items():
        if f"{weights.prefix}{module}.weight" in weights.shapes:
            return image
    ends = (family.locate(name, "comfyui", weights.layout) for name in (reading.reads, reading.writes))
    shapes = [weights.shapes.get(f"{weights.prefix}{places[0].path}.weight") for places in ends]
    read, written = shapes
    return (
        "concat_latent_image"
        if read and written and math.prod(read[1:]) > written[0] * math.prod(written[2:])
        else None
    )
