"""From folders of images or videos with captions to items, by ComfyUI's VAE and text encoders."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import comfy.model_management
import comfy.sd
import comfy.utils
import torch

from ....lyco_core.architectures import TrainedFamily
from ....lyco_core.errors import LycoError, TrainError, about_file
from ....lyco_core.io import SafetensorsFile
from ....lyco_core.train.dataset import Dataset, Media, at_rate, media_of, windows
from ....lyco_core.train.distributed import World
from ....lyco_core.train.first_frames import FirstFrame
from ....lyco_core.train.items import Item
from ..protocols import CLIP, VAE, Conditioning
from .cache import Entry, identity, read_conditioning, store_conditioning
from .first_frames import FrameEncoder, load_image_encoder, read_first_frame
from .media import count_frames, read_frames, read_image
from .memory import memory_for, out_of_memory

log = logging.getLogger("lyco")

E = TypeVar("E")
T = TypeVar("T")

ENCODING_HELPS = "a smaller resolution, fewer target_frames, fewer other programs that use the GPU"


@dataclasses.dataclass(frozen=True)
class Encoders:
    """The files that encode a dataset for a family."""

    trained: TrainedFamily
    vae: str
    text_encoders: tuple[str, ...]
    clip_type: str = ""
    """A name of ComfyUI's CLIP loader; empty: the family's."""
    first_frame: FirstFrame | None = None
    """How the model comes by a clip's first frame, if it reads it."""
    image_encoder: str = ""

    def __post_init__(self) -> None:
        if self.trained.clip_type is None:
            raise TrainError(
                f"ComfyUI has no model of {self.trained.names.base_model} to train it with; train it in Musubi Tuner"
            )
        if not self.vae or not self.text_encoders:
            lacking = "vae" if not self.vae else "text_encoder"
            raise TrainError(
                f"no {lacking} is named, which encodes the dataset: lyco train does the work of Musubi Tuner's scripts "
                "that cache too, so it takes their --vae and text encoders"
            )


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What was made of datasets to train on."""

    items: list[Item]
    empty: Conditioning
    """The conditioning of the empty caption."""


@dataclasses.dataclass(frozen=True)
class _Piece:
    """An image, or a piece of a video, and where its latent is kept."""

    dataset: Dataset
    media: Media
    frames: tuple[int, ...] | None
    """The numbers of a video's frames; None for an image."""
    entry: Entry
    first: Entry | None
    """Where its first frame's conditioning is kept, if the model reads that."""


def encode_datasets(datasets: Sequence[Dataset], encoders: Encoders, world: World | None = None) -> Encoded:
    """Every item of the datasets; what the cache has is not encoded again, and then nothing is loaded for it.

    Of several processes one encodes, the others wait for it and read.

    Raises:
        TrainError: nothing is there, no caption, or a file that cannot be decoded or encoded.
        FileError: the cache cannot be written.
    """
    world = world or World()
    pieces = [piece for dataset in datasets for piece in _pieces(dataset, encoders)]
    captions = {(piece.dataset.cache, piece.media.caption) for piece in pieces} | {(datasets[0].cache, "")}
    entries = {key: _caption_entry(*key, encoders) for key in sorted(captions)}
    if world.writes:
        if not all(entry.is_there for entry in entries.values()):
            _require_text_encoders(encoders)
        _encode_latents(pieces, encoders)
        _encode_first_frames(pieces, encoders)
        _encode_captions(entries, encoders)
    world.wait()
    conditions = {key: read_conditioning(entry) for key, entry in entries.items()}
    items = [
        Item(
            piece.entry.read()[0]["latent"],
            _with_first_frame(conditions[piece.dataset.cache, piece.media.caption], piece),
            os.path.basename(piece.media.path),
            piece.dataset.num_repeats,
            piece.dataset.batch_size or None,
        )
        for piece in pieces
    ]
    return Encoded(items, conditions[datasets[0].cache, ""])


def encode_texts(texts: Sequence[str], cache: str, encoders: Encoders, world: World) -> dict[str, list[Conditioning]]:
    """What the text encoder makes of texts, which one of several processes asks it, unless it is in the cache."""
    entries = {(cache, text): _caption_entry(cache, text, encoders) for text in texts}
    if world.writes:
        _encode_captions(entries, encoders)
    world.wait()
    return {text: [read_conditioning(entry)] for (_, text), entry in entries.items()}


def _pieces(dataset: Dataset, encoders: Encoders) -> list[_Piece]:
    found: list[_Piece] = []
    for media in media_of(dataset):
        pieces = _pieces_of_video(dataset, media, encoders.trained) if dataset.is_video else [None]
        if not pieces:
            log.warning("%s: is shorter than every target_frames, so it is left out", media.path)
        found += (_Piece(dataset, media, frames, *_entries(dataset, media, frames, encoders)) for frames in pieces)
    if not found:
        raise TrainError(f"{dataset.source}: every video is shorter than target_frames {list(dataset.target_frames)}")
    return found


def _pieces_of_video(dataset: Dataset, media: Media, trained: TrainedFamily) -> list[tuple[int, ...]]:
    target = trained.frames_a_second
    rate = min(1.0, target / dataset.source_fps) if target and dataset.source_fps else 1.0
    frames = at_rate(count_frames(media.path), rate)
    return [tuple(frames[start : start + count]) for start, count in windows(dataset, len(frames))]


def _entries(
    dataset: Dataset, media: Media, frames: tuple[int, ...] | None, encoders: Encoders
) -> tuple[Entry, Entry | None]:
    """Those of a piece's latent and of its first frame."""
    shape = [dataset.resolution, dataset.bucketed, dataset.stays_small, frames]
    name = os.path.splitext(os.path.basename(media.path))[0]
    name += f"_{frames[0]:05d}-{len(frames):03d}" if frames else ""
    made_from = (identity(media.path), shape, identity(encoders.vae))
    latent = Entry(dataset.cache, name, "latent", *made_from)
    if (kind := encoders.first_frame) is None:
        return latent, None
    vision = [identity(encoders.image_encoder), kind.crop] if kind.vision else []
    return latent, Entry(dataset.cache, f"{name}_first", kind.node, *made_from, vision)


def _with_first_frame(caption: Conditioning, piece: _Piece) -> Conditioning:
    return [caption[0], caption[1] | read_first_frame(piece.first)] if piece.first else caption


def _caption_entry(cache: str, caption: str, encoders: Encoders) -> Entry:
    files = [identity(path) for path in encoders.text_encoders]
    return Entry(cache, "caption", "caption", caption, files, _clip_type(encoders))


def _encode_latents(pieces: Sequence[_Piece], encoders: Encoders) -> None:
    missing = [piece for piece in pieces if not piece.entry.is_there]
    log.info("%d of %d latents are in the cache", len(pieces) - len(missing), len(pieces))
    if missing:
        _with_encoder(lambda: load_vae(encoders.vae), _store_latent, missing)


def _encode_first_frames(pieces: Sequence[_Piece], encoders: Encoders) -> None:
    if (kind := encoders.first_frame) is None:
        return
    found = [(piece.first, piece.media.path, piece.dataset, piece.frames) for piece in pieces if piece.first]
    missing = [one for one in found if not one[0].is_there]
    log.info("%d of %d first frames are in the cache", len(pieces) - len(missing), len(pieces))

    def load() -> FrameEncoder:
        vision = load_image_encoder(encoders.image_encoder) if kind.vision else None
        return FrameEncoder(kind, load_vae(encoders.vae), vision)

    if missing:
        _with_encoder(load, FrameEncoder.store, missing)


def _encode_captions(entries: dict[tuple[str, str], Entry], encoders: Encoders) -> None:
    missing = [(caption, entry) for (_, caption), entry in entries.items() if not entry.is_there]
    log.info("%d of %d captions are in the cache", len(entries) - len(missing), len(entries))
    if missing:
        _with_encoder(lambda: _load_clip(encoders), _store_caption, missing)


def _with_encoder(load: Callable[[], E], store: Callable[[E, T], None], missing: Sequence[T]) -> None:
    """Load an encoder, use it, and free its memory before anything else is loaded."""
    with memory_for("the dataset was encoded", ENCODING_HELPS), torch.inference_mode():
        encoder = load()
        for done, one in enumerate(missing, 1):
            store(encoder, one)
            log.info("encoded %d of %d", done, len(missing))
        del encoder
    comfy.model_management.unload_all_models()
    gc.collect()
    comfy.model_management.soft_empty_cache()


def _store_latent(vae: VAE, piece: _Piece) -> None:
    # One at a time: a VAE of videos would take a batch of images for one video.
    if piece.frames is None:
        pixels = read_image(piece.media.path, piece.dataset)
    else:
        pixels = read_frames(piece.media.path, piece.dataset, piece.frames)
    latents = vae.encode(pixels)
    if len(latents) != 1:
        raise TrainError(
            f"{piece.media.path}: the VAE encodes images one by one, not {len(pixels)} frames of a video; "
            "set target_frames to 1 and frame_extraction to head, or take a VAE of videos"
        )
    latent = latents[0].float().cpu().contiguous()
    if not bool(torch.isfinite(latent).all()):
        raise TrainError(f"{piece.media.path}: the VAE makes NaN or infinity of it; load another VAE")
    piece.entry.store({"latent": latent}, {})


def _store_caption(clip: CLIP, missing: tuple[str, Entry]) -> None:
    caption, entry = missing
    found = clip.encode_from_tokens_scheduled(clip.tokenize(caption))
    if len(found) != 1:
        raise TrainError(f"the text encoder makes {len(found)} conditionings of one caption, expected one")
    store_conditioning(entry, found[0])


def load_vae(path: str) -> VAE:
    """The VAE of a file. Raises `TrainError` if ComfyUI knows none such."""
    sd, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
    vae = comfy.sd.VAE(sd=sd, metadata=metadata)
    try:
        vae.throw_exception_if_invalid()
    except RuntimeError as error:
        raise TrainError(f"{path}: ComfyUI knows no such VAE: {error}") from None
    return vae


def _require_text_encoders(encoders: Encoders) -> comfy.sd.CLIPType:
    """The encoders' type. Raises `TrainError` if that is unknown, or a file is no text encoder."""
    kind = getattr(comfy.sd.CLIPType, _clip_type(encoders), None)
    if kind is None:
        known = ", ".join(kind.name.lower() for kind in comfy.sd.CLIPType)
        raise TrainError(f"clip_type is {encoders.clip_type!r}; this ComfyUI has {known}")
    for path in encoders.text_encoders:
        _require_text_encoder(path)
    return kind


def _load_clip(encoders: Encoders) -> CLIP:
    kind = _require_text_encoders(encoders)
    try:
        return comfy.sd.load_clip(ckpt_paths=list(encoders.text_encoders), clip_type=kind)
    except LycoError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        names = ", ".join(map(os.path.basename, encoders.text_encoders))
        raise TrainError(f"{names}: ComfyUI cannot load them as a text encoder of type {kind.name}: {error}") from error


def _require_text_encoder(path: str) -> None:
    """Refuse what is no text encoder: ComfyUI loads any file, and leaves weights that it does not find to chance."""
    with about_file(path), SafetensorsFile(path) as file:
        outline = {key: torch.empty(info.shape, device="meta") for key, info in file.header.tensors.items()}
        if comfy.sd.detect_te_model(outline) is None:
            raise TrainError("is no text encoder that ComfyUI knows; name the files that its CLIP loader takes")


def _clip_type(encoders: Encoders) -> str:
    if encoders.clip_type:
        return encoders.clip_type.upper()
    assert encoders.trained.clip_type is not None
    return encoders.trained.clip_type
