"""The files that README.md and docs/library.md name, tiny, and the lines of Python in a page."""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from .tables import musubi_file, random

__all__ = ["python_in", "write_library_files"]


def python_in(page: Path) -> str:
    """Every fenced block of Python, one after the other."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE))


def write_library_files(folder: Path) -> None:
    """Two adapters, a checkpoint with ComfyUI's names, and diffusers' folder of the same model."""
    from .diffusers_models import musubi_targets, tiny  # which skips the test where diffusers is not installed

    model = tiny("wan")
    model.save_pretrained(folder / "Wan2.1-T2V-1.3B-Diffusers" / "transformer")
    modules = musubi_targets("wan", model)
    torch.manual_seed(4)
    for algorithm in ("lokr", "loha"):
        tensors = musubi_file(modules, algorithm, lambda *shape: random(*shape) / 4)
        save_file(tensors, folder / f"my_{algorithm}.safetensors")
    weights = {f"{path}.weight": random(*shape) for path, shape in modules.items()}
    save_file(weights, folder / "wan2.1.safetensors")
