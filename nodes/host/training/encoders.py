"""The files that encode a dataset: the VAE, the text encoders and the image encoder that a family's training names."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any, Protocol

import comfy.sd
import comfy.utils
import torch

from ....lyco_core.architectures import TrainedFamily
from ....lyco_core.errors import LycoError, TrainError, about_file
from ....lyco_core.io import SafetensorsFile
from ....lyco_core.train.first_frames import FirstFrame
from ....lyco_core.train.references import References
from ..protocols import CLIP, VAE
from .cache import identity
from .first_frames import load_image_encoder
from .memory import out_of_memory
from .own_encoders import pixels_for_latents, tokens_for_text

log = logging.getLogger("lyco")


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
    references: References | None = None
    """How the model reads the control images; None: there are none."""
    drops_captions: bool = False
    """Whether each item is needed without its caption too."""

    def __post_init__(self) -> None:
        if self.trained.clip_type is None:
            raise TrainError(
                f"ComfyUI has no model of {self.trained.names.base_model} to train it with; train it in Musubi Tuner"
            )
        if self.itself and (self.vae or self.text_encoders):
            raise TrainError(
                f"the model ({self.trained.names.base_model}) reads pixels and words itself; leave out vae and "
                "text_encoder"
            )
        if not self.itself and not (self.vae and self.text_encoders):
            lacking = "vae" if not self.vae else "text_encoder"
            raise TrainError(
                f"no {lacking} is named, which encodes the dataset: lyco train does the work of Musubi Tuner's scripts "
                "that cache too, so it takes their --vae and text encoders"
            )

    @property
    def itself(self) -> bool:
        """Whether the model reads pixels and words itself, and there are no files."""
        return self.trained.clip_type == ""

    @property
    def frames_a_second(self) -> float | None:
        """Of the family's videos; None where it has none."""
        return self.trained.frames_a_second

    @property
    def steps(self) -> tuple[int, int]:
        """See `Dataset`: the family's."""
        return self.trained.steps

    def vae_identity(self) -> object:
        """What changes when the VAE does."""
        return "pixels" if self.itself else identity(self.vae)

    def text_identity(self) -> list[object]:
        """What changes when the text encoders do."""
        if self.itself:
            return [self.trained.names.base_model]
        return [[identity(path) for path in self.text_encoders], _clip_type(self)]

    def require_text_encoders(self) -> None:
        """Raise `TrainError` if the text encoders' type is unknown, or a file is none."""
        if not self.itself:
            _require_text_encoders(self)

    def load_vae(self) -> VAE:
        """The VAE. Raises `TrainError`."""
        return pixels_for_latents() if self.itself else _load_vae(self.vae)

    def load_clip(self) -> CLIP:
        """The text encoders. Raises `TrainError`."""
        return tokens_for_text() if self.itself else _load_clip(self)

    def vision_identity(self) -> object:
        """What changes when the image encoder does."""
        return identity(self.image_encoder)

    def load_vision(self) -> Any:
        """The image encoder. Raises `TrainError`."""
        return load_image_encoder(self.image_encoder)

    def encoded(self, done: int, total: int) -> None:
        """Told after each item; may raise to stop."""
        log.info("encoded %d of %d", done, total)


class Encoding(Protocol):
    """What encodes datasets: `Encoders`, of files; `LoadedEncoders`, of what a graph has loaded."""

    @property
    def frames_a_second(self) -> float | None: ...
    @property
    def steps(self) -> tuple[int, int]: ...
    @property
    def first_frame(self) -> FirstFrame | None: ...
    @property
    def references(self) -> References | None: ...
    @property
    def drops_captions(self) -> bool: ...
    def vae_identity(self) -> object: ...
    def text_identity(self) -> list[object]: ...
    def require_text_encoders(self) -> None: ...
    def load_vae(self) -> VAE: ...
    def load_clip(self) -> CLIP: ...
    def vision_identity(self) -> object: ...
    def load_vision(self) -> Any: ...
    def encoded(self, done: int, total: int) -> None: ...


def _load_vae(path: str) -> VAE:
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
