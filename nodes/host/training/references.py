"""Control images in a conditioning: what ComfyUI's own nodes put there for an edit model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ....lyco_core.errors import TrainError
from ....lyco_core.train.references import References
from ..protocols import CLIP, Conditioning

_OF_PIXELS = "HiDreamO1ReferenceImages"


def seen(clip: CLIP, caption: str, pictures: Sequence[Tensor], how: References | None) -> list[Conditioning]:
    """The conditioning of a caption, with pictures if the text encoder sees them, each (1, height, width, 3)."""
    if not (how and how.node and pictures):
        return clip.encode_from_tokens_scheduled(clip.tokenize(caption))
    names = ["image"] if how.most == 1 else [f"image{number}" for number in range(1, len(pictures) + 1)]
    return _run(how.node, clip=clip, prompt=caption, **dict(zip(names, pictures, strict=True)))


def with_references(entry: Conditioning, latents: Sequence[Tensor], how: References | None) -> Conditioning:
    """`entry` with the latents of control images, (C, …) as the VAE gives them, beside the text."""
    if how is None or not latents:
        return entry
    conditioning = [entry]
    if how.pixels:
        images = {f"image_{n}": (one.movedim(0, -1)[None] + 1) / 2 for n, one in enumerate(latents, 1)}
        return _run(_OF_PIXELS, positive=conditioning, negative=[], images=images)[0]
    for latent in latents:
        conditioning = _run("ReferenceLatent", conditioning=conditioning, latent={"samples": latent[None]})
    if how.method:
        conditioning = _run(
            "FluxKontextMultiReferenceLatentMethod", conditioning=conditioning, reference_latents_method=how.method
        )
    return conditioning[0]


def require_nodes(how: References) -> None:
    """Raise `TrainError` for a node that this ComfyUI lacks."""
    adding = _OF_PIXELS if how.pixels else "ReferenceLatent"
    for name in filter(None, (adding, how.node, how.method and "FluxKontextMultiReferenceLatentMethod")):
        _node(name)


def _run(name: str, **inputs: object) -> list[Conditioning]:
    return _node(name).execute(**inputs).args[0]


def _node(name: str) -> Any:
    try:
        if name == _OF_PIXELS:  # of which older ones have no module
            from comfy_extras import nodes_hidream_o1

            return nodes_hidream_o1.HiDreamO1ReferenceImages
        from comfy_extras import nodes_edit_model, nodes_flux, nodes_qwen

        return next(getattr(some, name) for some in (nodes_edit_model, nodes_flux, nodes_qwen) if hasattr(some, name))
    except (ImportError, StopIteration):
        raise TrainError(f"this ComfyUI has no node {name}, which control images need: update it") from None
