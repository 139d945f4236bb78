"""Encoded latents and captions on the disk, found again by what they were made from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from typing import Any

import torch
from torch import Tensor

from ....lyco_core.errors import FileError, LycoError, TrainError
from ....lyco_core.io import SafetensorsFile, TensorSpec, write_safetensors
from ....lyco_core.io.names import shortened
from ....lyco_core.train.dataset import frames_of
from ..protocols import Conditioning

log = logging.getLogger("lyco")

VERSION = 1
"""The version of what is encoded and how: with a new one, old entries are not found."""


def identity(path: str) -> object:
    """What changes when a file does, or a folder of frames. Raises `TrainError` if there is none."""
    if os.path.isdir(path):
        return os.path.basename(path), [identity(frame) for frame in frames_of(path)]
    try:
        status = os.stat(path)
    except OSError as error:
        raise TrainError(f"{path}: cannot be read: {error.strerror}") from None
    return os.path.basename(path), status.st_size, status.st_mtime_ns


class Entry:
    """One file of the cache, for one latent or one caption."""

    def __init__(self, folder: str, name: str, *made_from: object) -> None:
        """`made_from`: everything that decides what is in it, of types that JSON knows."""
        digest = hashlib.sha256(json.dumps([VERSION, *made_from]).encode()).hexdigest()[:24]
        safe = shortened(re.sub(r"[^\w.-]+", "_", name)[:60], 180)
        self.path = os.path.join(folder, f"{safe}_{digest}.safetensors")

    @property
    def is_there(self) -> bool:
        """Whether the entry can be read; a damaged one is as good as none."""
        if not os.path.exists(self.path):
            return False
        try:
            self._load()
        except LycoError as error:
            log.warning("%s; it is encoded again", error)
            return False
        return True

    def store(self, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
        """Write tensors, and what else there is. Raises `FileError` if the disk is full."""
        folder = os.path.dirname(self.path)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise FileError(f"{folder}: cannot be made: {error.strerror}; set cache_directory to another") from None
        specs = [TensorSpec(key, tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()]
        write_safetensors(self.path, specs, tensors.values(), {"lyco_cache": json.dumps(rest)}, overwrite=True)

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors, and what else there is, that `store` wrote."""
        with torch.inference_mode(False):
            return self._load()

    def _load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        with SafetensorsFile(self.path) as file:
            tensors = {key: file.tensor(key) for key in file.header.tensors}
            try:
                return tensors, json.loads(file.header.metadata["lyco_cache"])
            except (KeyError, ValueError):
                raise FileError(f"{self.path}: is damaged, or no file of the cache") from None


def store_conditioning(entry: Entry, conditioning: Conditioning) -> None:
    """Write [tensor, options]. Raises `TrainError` for options that no file can hold."""
    tensors, rest = {"": conditioning[0]}, {}
    for key, value in conditioning[1].items():
        if isinstance(value, Tensor):
            tensors[key] = value
        elif value is None or isinstance(value, (bool, int, float, str)):
            rest[key] = value
        else:
            raise TrainError(f"the text encoder gives {key} as {type(value).__name__}, which cannot be cached")
    entry.store({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, rest)


def read_conditioning(entry: Entry) -> Conditioning:
    """The [tensor, options] that `store_conditioning` wrote."""
    tensors, rest = entry.read()
    return [tensors.pop(""), rest | tensors]
