"""Frames beside the noise: models that read a clip's own first one or a control video, and ComfyUI's node for it."""

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

__all__ = ["FirstFrame", "first_frame", "first_frame_settings", "kind_of", "width_seen"]


@dataclasses.dataclass(frozen=True)
class FirstFrame:
    """How one kind of model comes by the frames that it reads beside the noise. Names are ComfyUI's."""

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
    asks: str = ""
    """The node by which the text encoder sees the frame beside the caption; empty: it reads the caption alone."""
    mark: str = ""
    """A weight that the kind alone has."""
    first: bool = True
    """Whether it reads the first frame of the clip itself."""
    last: bool = False
    """Whether the last frame comes in beside the first."""
    control: bool = False
    """Whether it reads a control video, which lies over the clip."""
    parts: tuple[str, ...] = ()
    """What a model of it is made of, where one that has more may read something else in the same channels."""
    chosen: bool = False
    """Whether it is the image encoder that makes image to video of it: what reads no frame has the same weights."""

    @property
    def looks(self) -> bool:
        """Whether an image encoder sees the frame."""
        return bool(self.vision or self.asks)


_SEEN = ("img_emb.proj.1", "penultimate_hidden_states")
_WAN = ("blocks", "patch_embedding", "text_embedding", "time_embedding", "time_projection", "img_emb", "head")
_FUN = (*_WAN, "ref_conv")
_CONTROL = "WanFunControlToVideo"

_KINDS: dict[str, tuple[FirstFrame, ...]] = {
    "wan": (
        FirstFrame("WanFirstLastFrameToVideo", 20, *_SEEN, mark="img_emb.emb_pos", last=True, parts=_WAN),
        FirstFrame("WanImageToVideo", 20, *_SEEN, mark="img_emb.proj.1.weight", parts=_WAN),
        FirstFrame("WanImageToVideo", 20, parts=_WAN),
        FirstFrame(_CONTROL, 32, *_SEEN, mark="img_emb.proj.1.weight", parts=_FUN, control=True, chosen=True),
        FirstFrame(_CONTROL, 32, parts=_FUN, control=True, first=False),
        FirstFrame("Wan22FunControlToVideo", 36, parts=_FUN, control=True, first=False),
    ),
    "hunyuan_video": (
        FirstFrame("HunyuanImageToVideo", 16),
        FirstFrame("HunyuanImageToVideo", 17, sees="mm_projected", asks="TextEncodeHunyuanVideo_ImageToVideo"),
    ),
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


def first_frame_settings(settings: dict[str, Any], given: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """The image encoder's file, taken out of the settings, and the `task` of a command of Musubi's, if it has one."""
    names = settings.pop("image_encoder", "")
    names = cast(list[Any], names) if isinstance(names, list) else [names]
    if len(names) > 1:
        raise TrainError(f"image_encoder is {names!r}, expected one file; clip and image_encoder are the same here")
    task = str(flattened(given).get("task") or "")
    return path_of(names[0] if names else "", "image_encoder", folder), task


def first_frame(weights: Model, image_encoder: str, task: str = "") -> FirstFrame | None:
    """How a model comes by the frames beside the noise; None if it is trained without.

    Args:
        image_encoder: the file that is named, or nothing.
        task: as a command of Musubi's has it; empty: it has none.

    Raises:
        TrainError: it reads an image that is none of these, or none although the task is that; or there is no image
            encoder, or another model's.
    """
    asked = re.match(r"i2v|flf2v", task) is not None
    family = weights.architecture
    found = kind_of(weights, seen=asked or bool(image_encoder and not task.startswith("t2v")))
    if found is None and image_input(weights):
        raise TrainError(
            "reads an image beside the noise that is neither its clip's first frame nor a control video alone, which "
            "is all that lyco train encodes, so it would be trained on zeros; train it in the graph with its own "
            "conditioning, or in Musubi Tuner"
        )
    if asked and not (found and found.first):
        raise TrainError("reads no first frame, and the task is image to video; name the dit of image to video")
    if task.endswith("-FC") and not (found and found.control):
        raise TrainError(f"reads no control video, and the task is {task}; name the dit of Fun-Control")
    if found and found.looks and not image_encoder:
        raise TrainError(
            "sees the first frame through an image encoder too, and none is named; give image_encoder, the file that "
            "ComfyUI's workflow of the model loads as CLIP vision"
        )
    if found is None and image_encoder and family and family.id == "hunyuan_video":
        raise TrainError(
            "reads a first frame, if any, in the latent itself (v2, replace), which is not trained here; take out "
            "image_encoder to train it as text to video, or name the dit of image to video v1 (concat)"
        )
    if found and found.looks:
        _require_image_encoder(image_encoder, found, weights)
    return found


def kind_of(weights: Model, *, seen: bool) -> FirstFrame | None:
    """The kind of a model that reads first frames, or None; `seen`: whether there is an image encoder."""
    family = weights.architecture
    kinds = [kind for kind in _KINDS.get(family.id, ()) if _fits(kind, weights)] if family else []
    return next((kind for kind in kinds if seen or not kind.chosen), None)


def width_seen(weights: Model, kind: FirstFrame) -> int:
    """How many numbers of each patch that an image encoder sees a model reads."""
    return weights.shapes[_key(weights, kind.vision)][-1]


def _require_image_encoder(path: str, kind: FirstFrame, weights: Model) -> None:
    """Raise `TrainError` unless what the file's encoder sees is as wide as what the model reads of it."""
    shapes = {key: info.shape for key, info in read_header(path).tensors.items()}
    if kind.asks:
        if _PROJECTOR not in shapes:
            raise TrainError(
                f"{path}: has no {_PROJECTOR}, by which the text encoder sees a frame; name the file that ComfyUI's "
                "workflow of the model loads as CLIP vision: llava_llama3_vision for HunyuanVideo"
            )
        return
    width = width_seen(weights, kind)
    found = {shape[-1] for key, shape in shapes.items() if key.endswith(_POSITIONS)}
    if found != {width}:
        what = f"sees {found.pop()} numbers in a patch" if found else "is no image encoder that ComfyUI knows"
        raise TrainError(
            f"{path}: {what}, and the model reads {width}; name the file that ComfyUI's workflow of the model loads as "
            "CLIP vision: clip_vision_h for Wan 2.1, sigclip_vision_patch14_384 for HunyuanVideo 1.5"
        )


_PROJECTOR = "multi_modal_projector.linear_1.bias"
"""What ComfyUI knows an encoder for a language model by."""

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
