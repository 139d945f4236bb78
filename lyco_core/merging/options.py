"""The options of a merge, and what a command's texts mean by them."""

from __future__ import annotations

import dataclasses
import math
import os
import re

import torch

from ..errors import MergeError, Remedy
from ..quantized import NEW_FORMS
from ..selection import EVERYTHING, Selection

__all__ = ["EXACT", "MergeOptions", "Source", "parse_size", "parse_source"]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclasses.dataclass(frozen=True)
class Source:
    """An adapter file, and how much of it is added."""

    path: str | os.PathLike[str]
    strength: float = 1.0
    """1 is what was trained; below 0 takes it away."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise MergeError(f"{os.fspath(self.path)}: strength {self.strength} is not a number")


@dataclasses.dataclass(frozen=True)
class MergeOptions:
    """How to merge; by default what is not changed is copied, and the rest rounded to the nearest."""

    selection: Selection = EVERYTHING
    dtype: torch.dtype | None = None
    """Storage dtype of the diffusion model's floating-point tensors; by default each tensor's own."""
    quantize: str | None = None
    """The form of `NEW_FORMS` that Linears of a base in floating point are given, each rounded once, from the sum."""
    seed: int | None = None
    """Round stochastically with this seed, instead of to the nearest."""
    device: str = "cpu"
    """Where the arithmetic is done."""
    max_shard_bytes: int | None = None
    """Split what is written into files of at most this size."""
    architecture: str | None = None
    """The adapters' model family, where their names and shapes fit several."""
    partial: bool = False
    """Merge what has a place and tell of the rest, instead of refusing."""

    def __post_init__(self) -> None:
        if self.dtype not in (None, torch.float32, torch.float16, torch.bfloat16):
            raise MergeError(f"the dtype is {self.dtype}, expected float32, float16 or bfloat16")
        if self.quantize not in (None, *NEW_FORMS):
            raise MergeError(f"the form is {self.quantize}, expected one of {', '.join(NEW_FORMS)}")
        if self.max_shard_bytes is not None and self.max_shard_bytes < 1:
            raise MergeError(f"a shard is to have {self.max_shard_bytes} bytes, expected at least 1 byte")
        if self.device != "cpu":
            _require_device(self.device)


EXACT = MergeOptions()
"""The default: every module at its strength, stored in the base's own dtypes, rounded to the nearest."""


def parse_source(text: str) -> Source:
    """The source that `FILE` or `FILE@STRENGTH` means; a name that has an @ of its own is a file if it is there."""
    path, at, number = text.rpartition("@")
    if not (path if at else text):
        raise MergeError(f"{text!r} names no adapter file; expected FILE or FILE@NUMBER")
    if not at or os.path.exists(text):
        return Source(text)
    try:
        return Source(path, float(number))
    except ValueError:
        raise MergeError(
            f"{text}: there is no such file, and {number!r} is no strength; expected FILE@NUMBER"
        ) from None


def parse_size(text: str) -> int:
    """How many bytes `5GB`, `500MiB` or `1000000` are. Raises `MergeError` if it is no size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?i?B?)", text.strip(), re.IGNORECASE)
    unit = match and _UNITS.get(match[2].upper() if match[2].upper() in _UNITS else match[2].upper() + "B")
    if not match or not unit:
        raise MergeError(f"{text!r} is no size of a shard, expected one such as 5GB or 500MiB")
    return int(float(match[1]) * unit)


def _require_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise MergeError(f"the device {device} is not there ({reason})", Remedy.PROCESSOR) from None
