"""From folders of images or videos with captions to items, by ComfyUI's VAE and text encoders."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import comfy.model_management
import torch
from torch import Tensor

from ....lyco_core.errors import TrainError
from ....lyco_core.train.dataset import Dataset
from ....lyco_core.train.distributed import World
from ....lyco_core.train.items import Item
from ..protocols import CLIP, VAE, Conditioning
from .cache import read_conditioning, store_conditioning
from .encoders import Encoding
from .first_frames import FrameEncoder, asked, read_first_frame, read_seen
from .memory import memory_for
from .pieces import Pictured, Piece, Text, caption_entry, pieces_of
from .references import require_nodes, seen, with_references

log = logging.getLogger("lyco")

E = TypeVar("E")
T = TypeVar("T")

ENCODING_HELPS = "a smaller resolution, fewer target_frames, fewer other programs that use the GPU"


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What was made of datasets to train on."""

    items: list[Item]
    empty: Conditioning
    """The conditioning of the empty caption."""


def encode_datasets(datasets: Sequence[Dataset], encoders: Encoding, world: World | None = None) -> Encoded:
    """Every item of the datasets; what the cache has is not encoded again, and then nothing is loaded for it.

    Of several processes one encodes, the others wait for it and read.

    Raises:
        TrainError: nothing is there, no caption, or a file that cannot be decoded or encoded.
        FileError: the cache cannot be written.
    """
    world = world or World()
    pieces = [piece for dataset in datasets for piece in pieces_of(dataset, encoders)]
    empty = Text("", caption_entry(datasets[0].cache, "", encoders))
    texts = [piece.text for piece in pieces] + [piece.empty for piece in pieces if encoders.drops_captions] + [empty]
    entries = {text.entry.path: text for text in texts}
    if encoders.references:
        require_nodes(encoders.references)
    if world.writes:
        if not all(text.entry.is_there for text in entries.values()):
            encoders.require_text_encoders()
        _encode_latents(pieces, encoders)
        _encode_first_frames(pieces, encoders)
        encode_captions([entries[path] for path in sorted(entries)], encoders)
    world.wait()
    conditions = {path: read_conditioning(text.entry) for path, text in entries.items()}
    return Encoded([_item(piece, conditions, encoders) for piece in pieces], conditions[empty.entry.path])


def _item(piece: Piece, conditions: Mapping[str, Conditioning], encoders: Encoding) -> Item:
    latent, how = piece.entry.read()[0]["latent"], encoders.references
    references = [control.entry.read()[0]["latent"] for control in piece.controls]
    if how and how.layers:  # along the frames the picture comes first
        references, latent = [latent[:, :1]], latent if how.whole else latent[:, 1:]

    def complete(text: Text) -> Conditioning:
        return _with_first_frame(with_references(conditions[text.entry.path], references, how), piece)

    return Item(
        latent,
        complete(piece.text),
        os.path.basename(piece.media.path),
        piece.dataset.num_repeats,
        piece.dataset.batch_size or None,
        complete(piece.empty) if encoders.drops_captions and (references or piece.empty.frame) else None,
    )


def _with_first_frame(caption: Conditioning, piece: Piece) -> Conditioning:
    return [caption[0], caption[1] | read_first_frame(piece.first.entry)] if piece.first else caption


def _encode_latents(pieces: Sequence[Piece], encoders: Encoding) -> None:
    everything: list[Pictured] = [*pieces]
    for piece in pieces:
        everything += piece.controls
    missing = [one for one in everything if not one.entry.is_there]
    log.info("%d of %d latents are in the cache", len(everything) - len(missing), len(everything))
    if missing:
        with_encoder(encoders.load_vae, store_latent, missing, encoders.encoded)


def _encode_first_frames(pieces: Sequence[Piece], encoders: Encoding) -> None:
    if (kind := encoders.first_frame) is None:
        return
    missing = [piece.first for piece in pieces if piece.first and not piece.first.entry.is_there]
    log.info("%d of %d first frames are in the cache", len(pieces) - len(missing), len(pieces))
    if missing:
        with_encoder(partial(FrameEncoder.of, kind, encoders), FrameEncoder.store, missing, encoders.encoded)


def encode_captions(texts: Sequence[Text], encoders: Encoding) -> None:
    """Have the cache hold the conditioning of captions."""
    missing = [text for text in texts if not text.entry.is_there]
    log.info("%d of %d captions are in the cache", len(texts) - len(missing), len(texts))
    if missing:
        with_encoder(encoders.load_clip, partial(_store_caption, encoders), missing, encoders.encoded)


def with_encoder(
    load: Callable[[], E], store: Callable[[E, T], None], missing: Sequence[T], told: Callable[[int, int], None]
) -> None:
    """Load an encoder, use it, and free its memory before anything else is loaded."""
    with memory_for("the dataset was encoded", ENCODING_HELPS), torch.inference_mode():
        encoder = load()
        for done, one in enumerate(missing, 1):
            store(encoder, one)
            told(done, len(missing))
        del encoder
    comfy.model_management.unload_all_models()
    gc.collect()
    comfy.model_management.soft_empty_cache()


def store_latent(vae: VAE, piece: Pictured) -> None:
    """Have the cache hold a latent. Raises `TrainError` if the VAE makes none of it."""
    piece.entry.store({"latent": latent_of(vae, piece.pixels, piece.path)}, {})


def latent_of(vae: VAE, pixels: Tensor, path: str) -> Tensor:
    """The latent, (C, …), of an image, of the frames of a video, or of an image and its layers with transparency.

    Raises `TrainError`, which names the path, if the VAE makes none of it.
    """
    # One at a time: a VAE of videos would take a batch of images for one video.
    latents = _layers(vae, pixels, path) if pixels.shape[-1] == 4 else vae.encode(pixels)
    if len(latents) != 1:
        raise TrainError(
            f"{path}: the VAE encodes images one by one, not {len(pixels)} frames of a video; "
            "set target_frames to 1 and frame_extraction to head, or take a VAE of videos"
        )
    latent = latents[0].float().cpu().contiguous()
    if not bool(torch.isfinite(latent).all()):
        raise TrainError(f"{path}: the VAE makes NaN or infinity of it; load another VAE")
    return latent


def _layers(vae: VAE, pixels: Tensor, path: str) -> Tensor:
    """An image and its layers, each encoded for itself, along the frames: (1, C, 1 + layers, height, width)."""
    if (channels := getattr(vae, "output_channels", 3)) != 4:
        raise TrainError(
            f"{path}: has layers, and the VAE makes {channels} channels and no transparency; name the VAE of "
            "Qwen-Image-Layered: qwen_image_layered_vae"
        )
    return torch.cat([vae.encode(one) for one in pixels.split(1)], dim=2)


def _store_caption(encoders: Encoding, clip: CLIP, text: Text) -> None:
    if text.frame and encoders.first_frame:
        found = asked(clip, text.caption, encoders.first_frame, read_seen(text.frame))
    else:
        found = seen(clip, text.caption, [one.pixels for one in text.pictures], encoders.references)
    if len(found) != 1:
        raise TrainError(f"the text encoder makes {len(found)} conditionings of one caption, expected one")
    store_conditioning(text.entry, found[0])
