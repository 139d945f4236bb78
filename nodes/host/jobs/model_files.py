"""The model files that can be a base: what the list of a node offers, and where each lies."""

from __future__ import annotations

import folder_paths

from ....lyco_core.errors import FileError
from ....lyco_core.io.paths import is_apple_double
from ..files import Stamp, stamp

FOLDERS = {"diffusion_models": "diffusion_models", "checkpoints": "checkpoints", "unet_gguf": "diffusion_models"}
"""Of the models folders, those that hold bases, the last ComfyUI-GGUF's -> the one under output for what is merged."""


def checkpoint_names() -> list[str]:
    """`folder/name` of each safetensors or GGUF file that could be a base."""
    return [
        f"{folder}/{name}"
        for folder in FOLDERS
        if folder in folder_paths.folder_names_and_paths
        for name in folder_paths.get_filename_list(folder)
        if name.lower().endswith((".safetensors", ".sft", ".gguf")) and not is_apple_double(name)
    ]


def checkpoint_fingerprint(choice: str | None) -> Stamp | None:
    """What changes when the base does. A linked name is not known yet: None."""
    return None if choice is None else stamp(checkpoint_path(choice))


def checkpoint_path(choice: str) -> str:
    """The path of a choice of `checkpoint_names`. Raises `FileError` for anything else."""
    folder, _, name = choice.partition("/")
    known = folder in FOLDERS and folder in folder_paths.folder_names_and_paths
    path = folder_paths.get_full_path(folder, name) if known else None
    if path is None:
        raise FileError(f"'{choice}': there is no such file in {' or '.join(FOLDERS)}; choose one from the list")
    return path
