"""The file that Musubi Tuner writes: its names, alphas, metadata and hashes."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Mapping

import torch

from ..adapter_writer import save_adapter_set
from ..architectures.training import MusubiNames
from ..errors import TrainError
from ..formats import emit
from .network import Network
from .network_options import NetworkOptions
from .option import Saved, options_in
from .targets import TargetChoice

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
        AdapterError: a number is beyond what `dtype` holds.
        FileError: `path` cannot be written.
    """
    found = network.adapter_set(_of_network(network) | dict(run) | _modelspec(_names(network.choice), spec))
    for key, tensor in emit(found)[0].items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainError(f"{key} has numbers that are NaN or infinite: training diverged; lower the learning rate")
    save_adapter_set(found, path, dtype=dtype, overwrite=overwrite)


def _of_network(network: Network) -> dict[str, str]:
    """What Musubi writes of the network in any case, and its factor, also where it is the default."""
    options, names = network.options, _names(network.choice)
    metadata = {
        "ss_base_model_version": names.base_model,
        "ss_network_module": f"networks.{names.lora_module if options.algorithm == 'lora' else options.algorithm}",
        **{
            f"ss_{made.name}": str(getattr(options, made.name))
            for made in options_in(NetworkOptions)
            if made.saved is Saved.NETWORK
        },
    }
    if args := options.network_args():
        metadata["ss_network_args"] = json.dumps(args)
    return metadata


def _modelspec(names: MusubiNames, spec: ModelSpec) -> dict[str, str]:
    width, height = spec.resolution or names.resolution
    now = datetime.datetime.now().replace(microsecond=0)
    given = {name: value for name, value in vars(spec).items() if isinstance(value, str)}
    if spec.timestep_range is not None:
        given["timestep_range"] = "{},{}".format(*spec.timestep_range)
    values = {
        "sai_model_spec": "1.0.0",
        "architecture": f"{names.architecture}/lora" if names.architecture else "",
        "implementation": names.implementation,
        "resolution": f"{width}x{height}",
        "date": now.isoformat(),
        **given,
    }
    return {f"modelspec.{name}": value for name, value in values.items() if value}


def _names(choice: TargetChoice) -> MusubiNames:
    return choice.trained.names.of(choice.blocks)
