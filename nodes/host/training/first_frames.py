"""The conditioning of frames beside the noise, by the node that ComfyUI samples such a model with; see `encoding`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import comfy.clip_vision
import torch
from torch import Tensor

from ....lyco_core.errors import TrainError, about_file
from ....lyco_core.io import read_header
from ....lyco_core.train.dataset import Dataset
from ....lyco_core.train.first_frames import FirstFrame
from ..protocols import CLIP, VAE, Conditioning
from .cache import Entry
from .comfy_nodes import run_node
from .media import read_control, read_control_frames, read_frames, read_image

if TYPE_CHECKING:
    from .encoders import Encoding

_WAN, _HUNYUAN = "comfy_extras.nodes_wan", "comfy_extras.nodes_hunyuan"

NODES: Mapping[str, tuple[str, Mapping[str, Any], tuple[str, ...]]] = {
    "WanImageToVideo": (_WAN, {"negative": []}, ("clip_vision_output",)),
    "WanFirstLastFrameToVideo": (_WAN, {"negative": []}, ("clip_vision_start_image", "clip_vision_end_image")),
    "HunyuanImageToVideo": (_HUNYUAN, {"guidance_type": "v1 (concat)"}, ()),
    "HunyuanVideo15ImageToVideo": (_HUNYUAN, {"negative": []}, ("clip_vision_output",)),
    "WanFunControlToVideo": (_WAN, {"negative": []}, ("clip_vision_output",)),
    "Wan22FunControlToVideo": (_WAN, {"negative": []}, ()),
}
"""ComfyUI's node -> its module, inputs that are the same always, and where the image encoder's outputs go."""

_IMAGES = ("start_image", "end_image")

SEEN = "clip_vision_output"


@dataclasses.dataclass(frozen=True)
class Clip:
    """What of an image, or of a piece of a video, is read beside the noise, and where its conditioning is kept."""

    entry: Entry
    path: str
    dataset: Dataset
    frames: tuple[int, ...] | None
    """The numbers of a video's frames; None for an image."""
    control: str = ""
    """The path of what lies over it; empty: nothing does."""
    control_frames: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class FrameEncoder:
    """What encodes frames beside the noise: a VAE, and the image encoder if the model has one."""

    kind: FirstFrame
    vae: VAE
    vision: Any = None
    """`comfy.clip_vision.ClipVisionModel`, for a kind that `looks`."""

    @classmethod
    def of(cls, kind: FirstFrame, encoders: Encoding) -> FrameEncoder:
        """What loads of a family's encoders what a kind needs."""
        return cls(kind, encoders.load_vae(), encoders.load_vision() if kind.looks else None)

    def conditioning(self, frames: Tensor, length: int, control: Tensor | None = None) -> dict[str, Any]:
        """What the frames add to the conditioning of a caption, and what the text encoder is to see of them if it does.

        Args:
            frames: (1, height, width, 3), at the size of the clip, of a kind without a first frame whichever; the last
                frame follows where the kind reads it.
            length: how many frames the clip has.
            control: (length, height, width, 3), where the kind reads it.
        """
        module, always, seen = NODES[self.kind.node]
        images = dict(zip(_IMAGES, frames.split(1), strict=False)) if self.kind.first else {}
        outputs: list[Any] = []
        if self.kind.looks:
            outputs = [self.vision.encode_image(image, crop=self.kind.crop) for image in images.values()]
            images |= dict(zip(seen, outputs, strict=False))
        node: Any = getattr(importlib.import_module(module), self.kind.node)
        height, width = frames.shape[1:3]
        size = {"width": width, "height": height, "length": length, "batch_size": 1}
        over = {"control_video": control} if self.kind.control else {}
        given = [[torch.zeros(1), {}]]
        ((_, found),) = run_node(node, positive=given, vae=self.vae, **size, **always, **images, **over)[0]
        return found | ({SEEN: outputs[0]} if self.kind.asks else {})

    def store(self, clip: Clip) -> None:
        """Write what the model reads beside the noise of a clip."""
        path, dataset, frames = clip.path, clip.dataset, clip.frames
        if frames is None:
            pixels = read_image(path, dataset)
        else:
            pixels = read_frames(path, dataset, sorted({frames[0], frames[-1 if self.kind.last else 0]}))
        ends = torch.cat([pixels[:1], pixels[-1:]]) if self.kind.last else pixels
        self.write(clip.entry, ends, len(frames or (0,)), _control_of(clip))

    def write(self, entry: Entry, ends: Tensor, length: int, control: Tensor | None = None) -> None:
        """Write the `conditioning` of frames."""
        found = self.conditioning(ends, length, control)
        if output := found.pop(SEEN, None):
            found[SEEN] = getattr(output, self.kind.sees)
        tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
        rest = {key: value for key, value in found.items() if key not in tensors}
        made = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        entry.store(made, {"sees": self.kind.sees, "asks": self.kind.asks, "rest": rest})


def _control_of(clip: Clip) -> Tensor | None:
    """What lies over a clip, at its size."""
    if not clip.control:
        return None
    if clip.control_frames is None:
        return read_control(clip.control, clip.path, clip.dataset)
    return read_control_frames(clip.control, clip.path, clip.dataset, clip.control_frames)


def read_first_frame(entry: Entry) -> dict[str, Any]:
    """What `FrameEncoder.store` wrote for the model, as a conditioning has it."""
    found, rest = entry.read()
    if rest.get("asks"):  # it is the text encoder's
        del found[SEEN]
    return _conditioning(found, rest)


def read_seen(entry: Entry) -> Any:
    """What an image encoder saw, that `FrameEncoder.write` wrote for the text encoder."""
    return _conditioning(*entry.read())[SEEN]


def asked(clip: CLIP, caption: str, kind: FirstFrame, output: Any) -> list[Conditioning]:
    """The conditioning of a caption that the text encoder reads with what an image encoder saw of a first frame."""
    node: Any = getattr(importlib.import_module(_HUNYUAN), kind.asks)
    interleave = next(given.default for given in node.define_schema().inputs if given.id == "image_interleave")
    return node.execute(clip=clip, clip_vision_output=output, prompt=caption, image_interleave=interleave).args[0]


def _conditioning(found: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {**found, **rest.get("rest", {})}
    if SEEN in made:
        output = comfy.clip_vision.Output()
        output[rest["sees"]] = made[SEEN]
        made[SEEN] = output
    return made


def load_image_encoder(path: str) -> Any:
    """ComfyUI's image encoder of a file. Raises `TrainError` if it is none, or lacks a weight."""
    with about_file(path):
        stored = read_header(path).tensors
        try:
            vision = comfy.clip_vision.load(path)
        except (RuntimeError, KeyError, UnboundLocalError) as error:
            raise TrainError(f"ComfyUI cannot load it as an image encoder: {error}") from None
        if vision is None:
            raise TrainError("is no image encoder that ComfyUI knows; name the file that its CLIP vision loader takes")
        wanted = [key for key in vision.get_sd() if key.startswith("vision_model.")]
        lacking = [key for key in wanted if key not in stored] if wanted[0] in stored else []
        if lacking:
            raise TrainError(f"lacks {len(lacking)} weights of an image encoder, {lacking[0]} among them; load it anew")
    return vision
