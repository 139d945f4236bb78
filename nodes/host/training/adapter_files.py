"""Adapter files before a training, which goes on from one, and after it, when its own goes onto the model."""

from __future__ import annotations

import torch

from ....lyco_core.adapter_reader import load_adapter_set, read_adapter_set, require_known
from ....lyco_core.adapters import Adapter
from ....lyco_core.architectures import Architecture
from ....lyco_core.conversion import ConvertOptions as Conversion
from ....lyco_core.conversion import convert_set
from ....lyco_core.errors import TrainError, about_file
from ....lyco_core.train.network import Network
from ....lyco_core.train.options import TrainOptions
from ....lyco_core.train.targets import TargetChoice
from ..model.beside import MODES
from ..model.loading import Loaded, apply
from ..model.matching import model_weights, our_patches
from ..model.places import Change
from ..protocols import ModelPatcher


def network_of(choice: TargetChoice, options: TrainOptions) -> Network:
    """A new network, or one that goes on from any file that the loader reads."""
    path = options.run.network_weights
    if not path:
        return Network.initial(choice, options.network)
    with about_file(path):
        adapters = musubi_adapters(path, choice.architecture)
        return Network.continued(choice, options.network, adapters)


def musubi_adapters(path: str, family: Architecture) -> dict[str, Adapter]:
    """Module path in Musubi's names -> adapter, of any file for `family` that the loader reads. Raises `LycoError`."""
    found = require_known(load_adapter_set(path, prefer=family.id))
    if found.architecture is not family:
        theirs = found.architecture.title if found.architecture else "no known model"
        raise TrainError(f"is an adapter for {theirs}, the model is {family.title}")
    return {made.module_path: made.adapter for made in convert_set(found, Conversion("musubi", goes_on=True)).modules}


def with_adapter(patcher: ModelPatcher, path: str) -> Loaded:
    """A clone of `patcher` with the adapter of a file that was trained on it, at strength 1, as *Load LoHa/LoKr*'s
    `auto` gives it.
    """
    with about_file(path), torch.inference_mode(False):
        placement = model_weights(patcher).place(read_adapter_set(path))
        patched = patcher.clone()
        division = apply(
            MODES[0], patched, {place: Change(patch, 1.0) for place, patch in our_patches(placement).items()}
        )
    return Loaded(patched, None, "\n".join(division.lines()))
