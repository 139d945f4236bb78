"""The VAE and the text encoders that a graph has loaded, for the same cache as those that `lyco train` loads."""

from __future__ import annotations

import hashlib
from typing import Any

import comfy.sd
import torch
from torch import Tensor

from ....lyco_core.train.dataset import STEPS
from ..progress import Progress
from ..protocols import CLIP, VAE
from .cache import identity

PIXELS = 32
"""What models make one token of that have pixels for a latent, at most: HiDream-O1."""

PLACES = {"load_device", "offload_device"}
"""What a loader may be told and still load the same numbers."""


class LoadedEncoders:
    """An `encoders.Encoding` of what nodes have loaded.

    What one of ComfyUI's loaders took from a file, as it is, is known by that file: its entries of the cache are those
    of `lyco train`. Anything else (an adapter on the text encoder, another pack's loader, CLIP Set Last Layer) is known
    by what it makes of a test.
    """

    def __init__(self, vae: VAE, clip: CLIP, frames_a_second: float | None) -> None:
        self.frames_a_second, self.steps = frames_a_second, steps_of(vae)
        self.first_frame = self.references = None
        """A dataset is made for no model: first frames and references come from the nodes that sample with them."""
        self.drops_captions = False
        self._vae, self._clip = vae, clip
        self._identities: dict[str, Any] = {}
        self._told = Progress()
        self.made = 0
        """How many latents and captions were encoded, and not found in the cache."""

    def vae_identity(self) -> object:
        """What changes when the VAE does."""
        if "vae" not in self._identities:
            path = _vae_path(self._vae)
            self._identities["vae"] = identity(path) if path else _digest(_made_of_picture(self._vae))
        return self._identities["vae"]

    def text_identity(self) -> list[object]:
        """What changes when the text encoders do, or what they are told to do."""
        if "text" not in self._identities:
            self._identities["text"] = _clip_files(self._clip) or [_digest(_made_of_text(self._clip))]
        return self._identities["text"]

    def require_text_encoders(self) -> None:
        """They are loaded already."""

    def load_vae(self) -> VAE:
        """The VAE."""
        return self._vae

    def load_clip(self) -> CLIP:
        """The text encoders."""
        return self._clip

    def vision_identity(self) -> object:
        """See `first_frame`."""
        raise NotImplementedError

    load_vision = vision_identity

    def encoded(self, done: int, total: int) -> None:
        """Told after each item. Raises ComfyUI's exception once the person interrupts."""
        if done == 1:
            self._told = Progress()
        self.made += 1
        self._told(done, total)


def steps_of(vae: VAE) -> tuple[int, int]:
    """`Dataset.steps` of a VAE: what it makes one latent of, or what models make one token of if that is more."""
    side = int(vae.spacial_compression_encode())
    return max(PIXELS if side == 1 else STEPS[0], side), vae.temporal_compression_decode() or STEPS[1]


def _vae_path(vae: VAE) -> str | None:
    loader, given = _loaded_by(vae)
    return given[0] if loader == "load_vae_patcher" else None


def _clip_files(clip: CLIP) -> list[object] | None:
    loader, given = _loaded_by(clip)
    if loader != "load_clip_model_patcher" or not set(given[3] or ()) <= PLACES:
        return None
    if clip.layer_idx is not None or clip.tokenizer_options or clip.apply_hooks_to_conds is not None:
        return None
    kind: comfy.sd.CLIPType = given[2]
    return [[identity(path) for path in given[0]], kind.name]


def _loaded_by(loaded: Any) -> tuple[str, tuple[Any, ...]]:
    """ComfyUI's function that can load the same again, and its arguments; empty if something was changed since."""
    patcher = getattr(loaded, "patcher", None)
    changed = any(getattr(patcher, name, None) for name in ("patches", "object_patches", "injections", "hook_patches"))
    again = getattr(patcher, "cached_patcher_init", None)
    return ("", ()) if changed or not again else (again[0].__name__, again[1])


@torch.inference_mode()
def _made_of_picture(vae: VAE) -> list[Tensor]:
    return [vae.encode(torch.rand((1, 64, 64, 3), generator=torch.Generator().manual_seed(0)))]


@torch.inference_mode()
def _made_of_text(clip: CLIP) -> list[Tensor]:
    found = clip.encode_from_tokens_scheduled(clip.tokenize("a photo of a cat, 1 (red:1.2) hat"))
    return [part for one in found for part in (one[0], *one[1].values()) if isinstance(part, Tensor)]


def _digest(tensors: list[Tensor]) -> str:
    made = hashlib.sha256()
    for tensor in tensors:
        made.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()
