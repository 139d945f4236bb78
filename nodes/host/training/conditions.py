"""Conditioning from ComfyUI's nodes as the arguments of a model's forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import comfy.clip_vision
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ....lyco_core.errors import TrainError
from ..protocols import BaseModel, Conditioning

UNFIT = ("area", "mask", "control", "gligen", "hooks", "start_percent", "end_percent", "timestep_start", "timestep_end")
"""What only a sampler can honour: training without it would be training on something else."""


def require_fit(entry: Conditioning, name: str) -> None:
    """Raise `TrainError` unless `entry`, [tensor, options], can be trained on as it is."""
    if found := [key for key in UNFIT if entry[1].get(key) is not None]:
        raise TrainError(
            f"{name}: its conditioning holds {', '.join(found)}, which only a sampler can honour; connect the text "
            "encoder's own output"
        )


IMAGES = {
    "concat_latent_image": "the node of its workflow that adds it, such as WanImageToVideo or InpaintModelConditioning",
    "vace_frames": "WanVaceToVideo",
    "reference_latents": "the node of its workflow that adds them",
}
"""An image in a conditioning -> what adds it."""


def require_image(entry: Conditioning, name: str, image: str) -> None:
    """Raise `TrainError` unless `entry` holds the image that the model reads beside the noise."""
    if entry[1].get(image) is None:
        raise TrainError(
            f"{name}: the model reads an image beside the noise and its conditioning holds no {image}, so it would be "
            f"trained on zeros; lead the conditioning through {IMAGES[image]}, or take a text to video model"
        )


OF_IMAGES = (
    *IMAGES,
    "reference_latents_method",
    "concat_mask",
    "concat_mask_index",
    "clip_vision_output",
    "noise_augmentation",
    "vace_mask",
    "vace_strength",
    "camera_conditions",
    "control_video",
    "pose_video_latent",
    "face_video_pixels",
    "reference_motion",
    "audio_embed",
    "time_dim_concat",
    "ref_latent",
    "reference_audio_timbre_latents",
    "guiding_frame_index",
)
"""What in a conditioning comes of an image, or another control, rather than of the caption."""


def without_caption(entry: Conditioning, empty: Conditioning) -> Conditioning:
    """The empty caption's conditioning with the images of `entry`: a caption is dropped, what is seen is not."""
    return [empty[0], empty[1] | {key: entry[1][key] for key in OF_IMAGES if key in entry[1]}]


def forward_arguments(model: BaseModel, entry: Conditioning, latent: Tensor, guidance: float) -> dict[str, Any]:
    """What `apply_model` takes beside the latent and the time, for one item.

    Args:
        entry: [tensor, options] of a CONDITIONING.
        latent: (1, C, …), in the model's space.
    """
    options = {key: _normal(value) for key, value in entry[1].items()} | {"guidance": guidance}
    conds = comfy.sampler_helpers.convert_cond([[_normal(entry[0]), options]])
    conds = comfy.samplers.encode_model_conds(
        model.extra_conds,
        conds,
        latent,
        latent.device,
        "positive",
        latent_image=latent,
        latent_shapes=[latent.shape],
    )
    made = {name: cond.process_cond(batch_size=1, area=None).cond for name, cond in conds[0]["model_conds"].items()}
    if getattr(model.diffusion_model, "time_r_in", None) is not None:  # distilled: it wants a sampler's next time too
        made["disable_time_r"] = True
    return made


def together(arguments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Arguments of single items, which `groups` put together, as those of one batch."""
    if len(arguments) == 1:
        return arguments[0]
    return {name: _joined([one[name] for one in arguments]) for name in arguments[0]}


def _joined(values: Sequence[Any]) -> Any:
    """An argument of several items as that of one batch; what is no tensor is the same in all."""
    if isinstance(values[0], Tensor):
        return torch.cat(list(values))
    if isinstance(values[0], list):  # of latents, for each reference one
        return [_joined(some) for some in zip(*values, strict=True)]
    return values[0]


def groups(entries: Sequence[Conditioning]) -> list[list[int]]:
    """Which entries a model can take in one batch: equal shapes and nothing else that differs.

    A caption that is padded to the length of another gives another result in most models, and most
    take no batch of masks, so those go one by one.
    """
    found: dict[object, list[int]] = {}
    for index, entry in enumerate(entries):
        found.setdefault(_signature(entry, index), []).append(index)
    return list(found.values())


def _signature(entry: Conditioning, index: int) -> object:
    parts: list[object] = [tuple(entry[0].shape)]
    for key, value in sorted(entry[1].items()):
        if isinstance(value, Tensor) and ("mask" not in key or key == "concat_mask"):  # that is no mask of tokens
            parts.append((key, tuple(value.shape)))
        elif isinstance(value, comfy.clip_vision.Output):
            seen = sorted((name, tuple(one.shape)) for name, one in vars(value).items() if isinstance(one, Tensor))
            parts.append((key, tuple(seen)))
        elif value is None or isinstance(value, (bool, int, float, str)):
            parts.append((key, value))
        elif key == "reference_latents" and "text_input_ids" not in entry[1]:  # HiDream-O1 sees those of one alone
            parts.append((key, tuple(tuple(latent.shape) for latent in value)))
        else:
            parts.append((key, index))
    return tuple(parts)


def _normal(value: Any) -> Any:
    """`value` with copies of tensors that a node made in inference mode, since autograd keeps none of those."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, (list, tuple)):
        return type(value)(map(_normal, value))
    if isinstance(value, comfy.clip_vision.Output):
        made = comfy.clip_vision.Output()
        vars(made).update({name: _normal(one) for name, one in vars(value).items()})
        return made
    return value


def entries_of(conditioning: Sequence[list[Conditioning]]) -> Iterator[Conditioning]:
    """Every [tensor, options] of a list of CONDITIONINGs, one an item."""
    for found in conditioning:
        yield from found
