"""Models that are told an image beside the text: without one they would be trained on zeros."""

from __future__ import annotations

import math

from ..model import Model

__all__ = ["image_input"]

_ENDS = {
    "wan": ("patch_embedding", "head.head"),
    "hunyuan_video": ("img_in.proj", "final_layer.linear"),
    "flux1": ("img_in", "final_layer.linear"),
}
"""Architecture -> the modules that read a patch and that write one, in ComfyUI's names. HunyuanVideo 1.5 is none of
them: it has channels for an image in any case, and zeros in them are its text to video."""

_BY_ITSELF = {
    "vace_patch_embedding": "vace_frames",
    "patch_embedding_pose": "reference_latents",  # SCAIL
    "audio_proj.audio_proj_glob_1.layer": None,  # HuMo: its further channels have values of their own
}
"""A module that reads an image by itself -> what ComfyUI's conditioning calls that image."""


def image_input(weights: Model) -> str | None:
    """What ComfyUI's conditioning calls the image that a model reads beside the noise, or None if it reads none.

    A model that reads more numbers of a patch than it writes is one: Wan's image to video and
    Fun-Control, FLUX.1 Fill, Depth and Canny, HunyuanVideo's image to video.
    """
    family = weights.architecture
    if family is None or family.id not in _ENDS:
        return None
    for module, image in _BY_ITSELF.items():
        if f"{weights.prefix}{module}.weight" in weights.shapes:
            return image
    ends = (family.locate(name, "comfyui", weights.layout) for name in _ENDS[family.id])
    shapes = [weights.shapes.get(f"{weights.prefix}{places[0].path}.weight") for places in ends]
    read, written = shapes
    return "concat_latent_image" if read and written and math.prod(read[1:]) > written[0] else None
