"""What can be refused before a model is loaded or a dataset encoded, which take minutes."""

from __future__ import annotations

import os

import torch

from ..architectures import Architecture, TrainedFamily
from ..errors import TrainError, about_file
from ..io import read_header
from ..model import Model
from ..text import shorten
from .loop import require_needed_inputs
from .optimizers import make_optimizer
from .options import TrainOptions
from .rates import Rates
from .samples import prompts_of
from .state import require_resumable
from .targets import require_trainable
from .trackers import require_trackers
from .training_files import require_place
from .two_models import require_pair, resolve_boundary

__all__ = ["require_other", "require_possible", "require_readable"]


def require_possible(
    options: TrainOptions,
    family: Architecture | None,
    folder: str | os.PathLike[str],
    *,
    empty: bool,
    validation: bool,
    processes: int = 1,
) -> tuple[Architecture, TrainedFamily]:
    """Refuse a training that cannot begin or cannot save in `folder`; returns the family and how it is trained.

    Args:
        empty: whether there is the condition of the empty caption.
        validation: whether there are validation items.
        processes: how many train together.

    Raises:
        TrainError: the family is not trained, a library is not installed, options do not go
            together, or the state to resume from is another training's.
        FileError: nothing can be written there, or an earlier training's files are.
    """
    family, trained = require_trainable(family)
    require_needed_inputs(options.run, empty=empty, validation=validation)
    if options.memory.shard_blocks and processes == 1:
        raise TrainError(
            "shard_blocks divides the blocks over the processes of torchrun, and this one is alone; start it with "
            "torchrun, or set shard_blocks to false"
        )
    prompts_of(options)
    require_trackers(options.save)
    require_place(folder, options.save.output_name, resume=bool(options.run.resume))
    rate = options.optimizer.learning_rate
    rates = options.network.all_rates(rate)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2, 2))], "lr": one} for one in rates]
    optimizer = make_optimizer(options.optimizer, groups)
    Rates(optimizer, options.optimizer, options.schedule)
    if options.run.resume:
        require_resumable(options.run.resume, family.id, options)
    return family, trained


def require_readable(path: str | os.PathLike[str]) -> None:
    """Raise `TrainError` unless ComfyUI, without the help of another pack, can read all weights of a model file."""
    with about_file(path):
        if _is_gguf(path):
            raise TrainError(
                "ComfyUI by itself loads no GGUF; train on it in the graph, behind the loader of ComfyUI-GGUF, or give "
                "the safetensors file that it was made from"
            )
        header = read_header(path)
        described = {key.removesuffix(".comfy_quant") for key in header.tensors if key.endswith(".comfy_quant")}
        codes = [
            key
            for key, info in header.tensors.items()
            if key.endswith(".weight") and not info.dtype.lstrip("B").startswith("F")
        ]
        unknown = [key for key in codes if key.removesuffix(".weight") not in described]
        if unknown and "_quantization_metadata" not in header.metadata:
            raise TrainError(
                f"{len(unknown)} weights are stored as {header.tensors[unknown[0]].dtype} ({shorten(unknown)}), and no "
                "comfy_quant beside them says what numbers these are; train on the bf16, fp16 or fp8 file, or in the "
                "graph, behind the loader of the pack that made this one"
            )


def require_other(path: str | os.PathLike[str], low: Model, options: TrainOptions) -> None:
    """Raise `LycoError` unless a file is of the model for high noise beside `low`, and both would be trained."""
    require_readable(path)
    with about_file(path):
        require_pair(low, Model.of_file(path), options.network)
    resolve_boundary(options.noise, low, two=True)


def _is_gguf(path: str | os.PathLike[str]) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False  # what is wrong with it, reading the header says
