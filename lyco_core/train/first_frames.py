"""First frames: models that read a clip's own beside the noise, and how ComfyUI makes that conditioning."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import TrainError
from ..io import read_header
from ..io.toml import path_of
from ..model import Model
from .image_inputs import image_input
from .musubi.answers import flattened

__all__ = ["FirstFrame", "first_frame", "first_frame_settings", "kind_of"]


@dataclasses.dataclass(frozen=True)
class FirstFrame:
    """How one kind of model comes by the first frame of a clip. Names are ComfyUI's."""

    node: str
    """The node of its workflow, whose conditioning it is trained on."""
    channels: int
    """How many more a patch has that is read than one that is written."""
    vision: str = ""
    """The module that reads what an image encoder sees in the frame; empty: there is none."""
    sees: str = ""
    """What of the image encoder's output it reads."""
    crop: bool = False
    """Whether its workflow has the encoder see a square in the middle of the frame rather than all of it, squeezed."""
    mark: str = ""
    """A weight that the kind alone has."""
    last: bool = False
    """Whether the last frame comes in beside the first."""
    parts: tuple[str, ...] = ()
    """What a model of it is made of, where one that has more may read something else in the same channels."""
    chosen: bool = False
    """Whether it is the image encoder that makes image to video of it: its text to video has the same weights."""


_SEEN = ("img_emb.proj.1", "penultimate_hidden_states")
_WAN = ("blocks", "patch_embedding", "text_embedding", "time_embedding", "time_projection", "img_emb", "head")

_KINDS: dict[str, tuple[FirstFrame, ...]] = {
    "wan": (
        FirstFrame("WanFirstLastFrameToVideo", 20, *_SEEN, mark="img_emb.emb_pos", last=True, parts=_WAN),
        FirstFrame("WanImageToVideo", 20, *_SEEN, mark="img_emb.proj.1.weight", parts=_WAN),
        FirstFrame("WanImageToVideo", 20, parts=_WAN),
    ),
    "hunyuan_video": (FirstFrame("HunyuanImageToVideo", 16),),
    "hunyuan_video_1_5": (
        FirstFrame("HunyuanVideo15ImageToVideo", 33, "vision_in.proj.1", "last_hidden_state", crop=True, chosen=True),
    ),
}
"""Id of an architecture -> its kinds, the one that is told by most first."""

_ENDS = {
    "wan": ("patch_embedding", "head.head"),
    "hunyuan_video": ("img_in.proj", "final_layer.linear"),
    "hunyuan_video_1_5": ("img_in.proj", "final_layer.linear"),
}
"""Id of an architecture -> the module that reads a patch, and the one that writes one."""


def first_frame_settings(settings: dict[str, Any], given: Mapping[str, Any], folder: Path) -> tuple[str, bool]:
    """The image encoder's file, taken out of the settings, and whether a command of Musubi's says image to video."""
    names = settings.pop("image_encoder", "")
    names = cast(list[Any], names) if isinstance(names, list) else [names]
    if len(names) > 1:
        raise TrainError(f"image_encoder is {names!r}, expected one file; clip and image_encoder are the same here")
    asked = re.match(r"i2v|flf2v", str(flattened(given).get("task", ""))) is not None
    return path_of(names[0] if names else "", "image_encoder", folder), asked


def first_frame(weights: Model, image_encoder: str, *, asked: bool = False) -> FirstFrame | None:
    """How a model comes by first frames; None if it is trained without.

    Args:
        image_encoder: the file that is named, or nothing.
        asked: whether image to video is asked for, in a command of Musubi's.

    Raises:
        TrainError: it reads an image that is none of these, or none although it is asked for; or there is no image
            encoder, or another model's.
    """
    found = kind_of(weights, seen=bool(image_encoder) or asked)
    if found is None and image_input(weights):
        raise TrainError(
            "reads an image beside the noise that is not its clip's first frame alone, which is all that lyco train "
            "encodes, so it would be trained on zeros; train it in the graph with its own conditioning, or in Musubi "
            "Tuner"
        )
    if found is None and asked:
        raise TrainError("reads no first frame, and the task is image to video; name the dit of image to video")
    if found and found.vision and not image_encoder:
        raise TrainError(
            "sees the first frame through an image encoder too, and none is named; give image_encoder, the file that "
            "ComfyUI's workflow of the model loads as CLIP vision"
        )
    if found and found.vision:
        _require_image_encoder(image_encoder, weights.shapes[_key(weights, found.vision)][-1])
    return found


def kind_of(weights: Model, *, seen: bool) -> FirstFrame | None:
    """The kind of a model that reads first frames, or None; `seen`: whether there is an image encoder."""
    family = weights.architecture
    kinds = [kind for kind in _KINDS.get(family.id, ()) if _fits(kind, weights)] if family else []
    return next((kind for kind in kinds if seen or not kind.chosen), None)


def _require_image_encoder(path: str, width: int) -> None:
    """Raise `TrainError` unless what the file's encoder sees is as wide as what the model reads of it."""
    shapes = {key: info.shape for key, info in read_header(path).tensors.items()}
    found = {shape[-1] for key, shape in shapes.items() if key.endswith(_POSITIONS)}
    if found != {width}:
        what = f"sees {found.pop()} numbers in a patch" if found else "is no image encoder that ComfyUI knows"
        raise TrainError(
            f"{path}: {what}, and the model reads {width}; name the file that ComfyUI's workflow of the model loads as "
            "CLIP vision: clip_vision_h for Wan 2.1, sigclip_vision_patch14_384 for HunyuanVideo 1.5"
        )


_POSITIONS = ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding")


def _fits(kind: FirstFrame, weights: Model) -> bool:
    family = weights.architecture
    assert family is not None
    read, written = (weights.shapes.get(_key(weights, name)) for name in _ENDS[family.id])
    if not read or not written or read[1] != written[0] // math.prod(read[2:]) + kind.channels:
        return False
    if kind.mark and f"{weights.prefix}{kind.mark}" not in weights.shapes:
        return False
    return not kind.parts or all(path.split(".")[0] in kind.parts for path in weights.paths)


def _key(weights: Model, module: str) -> str:
    """The weight of a module in the names that the model has."""
    family = weights.architecture
    located = family.locate(module, "comfyui", weights.layout) if family else []
    return f"{weights.prefix}{located[0].path if located else module}.weight"
