"""The numbers of a checkpoint's weights, each read when it is asked for, whatever it is stored as."""

from __future__ import annotations

import os
from types import TracebackType

from torch import Tensor

from .adapters.base import compute_dtype
from .errors import MergeError, PlacementError, about_file
from .finite import check_finite
from .io import Checkpoint
from .model import model_of
from .quantized.reading import read_weight

__all__ = ["CheckpointWeights"]


class CheckpointWeights:
    """An open checkpoint, as a model and its weights.

        with CheckpointWeights("model.safetensors") as weights:
            weight = weights.read("model.diffusion_model.blocks.0.attn.q.weight")

    Raises:
        FileError: it cannot be opened, or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.checkpoint = Checkpoint(path)
        try:
            with about_file(path):
                self.model, self.quantization = model_of(self.checkpoint)
        except BaseException:
            self.checkpoint.__exit__(None, None, None)
            raise

    def __enter__(self) -> CheckpointWeights:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.checkpoint.__exit__(kind, error, at)

    def read(self, key: str) -> Tensor:
        """What a weight stands for, in memory of its own, in float32 (float64 if it is so).

        Raises:
            LycoError: there is none, it is stored as what cannot be read, or holds NaN or Inf.
        """
        path = key.removeprefix(self.model.prefix).removesuffix(".weight")
        with about_file(self.checkpoint.path):
            if (title := self.quantization.refused.get(path)) is not None:
                raise MergeError(f"{key}: is stored as {title}, which cannot be read; give a checkpoint such as bf16")
            if key not in self.checkpoint.holder:
                raise PlacementError(f"{key}: has no such weight; give the checkpoint that the adapter was trained on")
        form, file = self.quantization.forms.get(key), self.checkpoint.holder[key]
        with about_file(file.path):
            values = file.tensor(key) if form is None else read_weight(form, self.checkpoint.holder)
            check_finite(key, values)
        return values.to(compute_dtype(values.dtype))
