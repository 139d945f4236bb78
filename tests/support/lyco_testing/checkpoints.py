"""Small bases for the golden Wan adapters, whole and in shards."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .tables import GOLDEN

INDEX = "model.safetensors.index.json"
DELTAS = GOLDEN / "wan_t2v" / "lora.expected.safetensors"


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of the shapes that the golden adapters change."""
    torch.manual_seed(seed)
    return {key: torch.randn(delta.shape) for key, delta in load_file(DELTAS).items()}


def shard(tensors: dict[str, torch.Tensor], folder: Path, parts: int, *, index: bool = True) -> None:
    """Write `tensors` in turn to so many files, as Hugging Face names them."""
    folder.mkdir()
    keys, places = list(tensors), {}
    for n in range(parts):
        name = f"model-{n + 1:05}-of-{parts:05}.safetensors"
        save_file({key: tensors[key] for key in keys[n::parts]}, folder / name, {"format": "pt"})
        places |= dict.fromkeys(keys[n::parts], name)
    if index:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
