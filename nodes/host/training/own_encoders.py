"""The VAE and the text encoder of a model that reads pixels and words itself, as ComfyUI's checkpoint loader has them.

Neither has a weight: the one has pixels from -1 to 1 for a latent, the other the tokens of a caption.
"""

from __future__ import annotations

from typing import Any

import comfy.sd
import comfy.supported_models

from ....lyco_core.errors import TrainError
from ..protocols import CLIP, VAE


def pixels_for_latents() -> VAE:
    """The VAE. Raises `TrainError` if this ComfyUI has no such model."""
    return comfy.sd.VAE(sd=_model().process_vae_state_dict({}))


def tokens_for_text() -> CLIP:
    """The text encoder. Raises `TrainError` if this ComfyUI has no such model."""
    model = _model()
    state = model.process_clip_state_dict({})
    return comfy.sd.CLIP(model.clip_target(), tokenizer_data=state, state_dict=state)


def _model() -> Any:
    found = getattr(comfy.supported_models, "HiDreamO1", None)
    if found is None:
        raise TrainError("this ComfyUI has no model of HiDream-O1: update it")
    return found({"image_model": "hidream_o1"})
