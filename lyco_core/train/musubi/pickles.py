"""Models that Musubi Tuner reads from pickles, and ComfyUI does not."""

from __future__ import annotations

import os
import re

__all__ = ["why_pickle"]

_MODEL = (
    "is a pickle: name the safetensors file that ComfyUI's own workflows load (docs/training.md lists them), or "
    "convert it: python -c \"import torch, safetensors.torch as s; d = torch.load('IN.pt', weights_only=True, "
    "map_location='cpu'); s.save_file({k: v.contiguous() for k, v in d.get('module', d).items()}, 'OUT.safetensors')\""
)

_REFUSED = {
    "dit": _MODEL,
    "dit_high_noise": _MODEL,
    "text_encoder": "is a pickle, with other names than ComfyUI's text encoders have: name the safetensors file that "
    "ComfyUI's own workflows load; docs/training.md lists them",
    "image_encoder": "is a pickle, with other names than ComfyUI's image encoders have: name the safetensors file that "
    "ComfyUI's own workflows load as CLIP vision; docs/training.md lists them",
}
"""Option -> what is said of a pickle that it names. ComfyUI reads that of a VAE."""


def why_pickle(option: str, file: str) -> str:
    """Why a file is refused as what the option names: it is a pickle by its name; empty if it is not refused."""
    if option in _REFUSED and re.search(r"\.(pt|pth|bin|ckpt)$", file, re.IGNORECASE):
        return f"{os.path.basename(file)} {_REFUSED[option]}"
    return ""
