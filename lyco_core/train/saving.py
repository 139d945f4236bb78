"""The file that Musubi Tuner writes: its names, alphas, metadata and hashes."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Mapping

import torch

from ..adapter_writer import save_adapter_set
from ..errors import TrainError
from ..formats import emit
from .network import Network
from .targets import Choice

__all__ = ["STORAGE_DTYPES", "ModelSpec", "save_network"]

STORAGE_DTYPES = {"float": torch.float32, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Musubi's `save_precision` -> dtype of every tensor in the file."""


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What a person says of the file (Musubi's `--metadata_…`); stability.ai's ModelSpec 1.0.0."""

    title: str
    resolution: tuple[int, int] | None = None
    """Width and height; None for what Musubi gives for the architecture."""
    author: str | None = None
    description: str | None = None
    license: str | None = None
    tags: str | None = None
    timestep_range: tuple[int, int] | None = None
    """First and last timestep that was trained, of 0 to 1000; None for all."""


@dataclasses.dataclass(frozen=True)
class _Model:
    """What Musubi calls a model family in metadata."""

    base_model: str
    """ss_base_model_version."""
    architecture: str
    implementation: str
    lora_module: str
    resolution: tuple[int, int] = (1280, 720)


_FLUX = "https://github.com/black-forest-labs/flux"
_MODELS = {
    "wan": _Model("wan", "wan2.1", "https://github.com/Wan-Video/Wan2.1", "lora_wan"),
    "flux1": _Model("flux_kontext", "Flux.1-dev", _FLUX, "lora_flux"),
    "flux2": _Model("flux_2_dev", "Flux.2-dev", f"{_FLUX}2", "lora_flux_2"),
    "hunyuan_video": _Model("hunyuan_video", "hunyuan-video", "https://github.com/Tencent/HunyuanVideo", "lora"),
    "hunyuan_video_1_5": _Model(
        "hunyuan_video_1_5", "hunyuan-video-1.5", "https://github.com/Tencent-Hunyuan/HunyuanVideo-1.5", "lora_hv_1_5"
    ),
    "framepack": _Model("framepack", "framepack", "https://github.com/lllyasviel/FramePack", "lora_framepack"),
    "qwen_image": _Model(
        "qwen_image", "Qwen-Image", "https://github.com/QwenLM/Qwen-Image", "lora_qwen_image", (1328, 1328)
    ),
    "z_image": _Model("z_image", "Z-Image", "https://github.com/Tongyi-MAI/Z-Image", "lora_zimage", (1024, 1024)),
}

_FLUX2_SIZES = {20: ("flux_2_klein_4b", "Flux.2-klein-4b"), 24: ("flux_2_klein_9b", "Flux.2-klein-9b")}
"""How many single blocks FLUX.2's smaller models have -> what they are called."""


def save_network(
    path: str | os.PathLike[str],
    network: Network,
    spec: ModelSpec,
    run: Mapping[str, str],
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> None:
    """Write what is trained so far; nothing is left under `path`, or what was there, unless all of it is written.

    Args:
        run: the `ss_…` entries that depend on the run (learning rate, steps, datasets …); they win
            over those that the network gives. Empty for Musubi's `--no_metadata`.
        dtype: of every tensor, but for an alpha that it does not hold exactly.
        overwrite: replace a file that is there.

    Raises:
        TrainError: a number is NaN or infinite.
        AdapterError: one is beyond what `dtype` holds.
        FileError: `path` cannot be written.
    """
    found = network.adapter_set(_of_network(network) | dict(run) | _modelspec(_model_of(network.choice), spec))
    for key, tensor in emit(found)[0].items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainError(f"{key} has numbers that are NaN or infinite: training diverged; lower the learning rate")
    save_adapter_set(found, path, dtype=dtype, overwrite=overwrite)


def _of_network(network: Network) -> dict[str, str]:
    """What Musubi writes of the network in any case, and its factor, also where it is the default."""
    options, model = network.options, _model_of(network.choice)
    metadata = {
        "ss_base_model_version": model.base_model,
        "ss_network_module": f"networks.{model.lora_module if options.algorithm == 'lora' else options.algorithm}",
        "ss_network_dim": str(options.network_dim),
        "ss_network_alpha": str(options.network_alpha),
    }
    if args := options.network_args():
        metadata["ss_network_args"] = json.dumps(args)
    return metadata


def _modelspec(model: _Model, spec: ModelSpec) -> dict[str, str]:
    width, height = spec.resolution or model.resolution
    now = datetime.datetime.now().replace(microsecond=0)
    given = {name: getattr(spec, name) for name in ("author", "description", "license", "tags")}
    if spec.timestep_range is not None:
        given["timestep_range"] = "{},{}".format(*spec.timestep_range)
    values = {
        "sai_model_spec": "1.0.0",
        "architecture": f"{model.architecture}/lora",
        "implementation": model.implementation,
        "title": spec.title,
        "resolution": f"{width}x{height}",
        "date": now.isoformat(),
        **{name: value for name, value in given.items() if value is not None},
    }
    return {f"modelspec.{name}": value for name, value in values.items()}


def _model_of(choice: Choice) -> _Model:
    model = _MODELS[choice.architecture.id]
    if choice.architecture.id == "flux2" and (names := _FLUX2_SIZES.get(choice.blocks["single_blocks"])):
        return dataclasses.replace(model, base_model=names[0], architecture=names[1])
    return model
