"""Files of tensors."""

from pathlib import Path

from safetensors.torch import load
from torch import Tensor


def unmapped(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that may be replaced meanwhile: Windows replaces none that is mapped, as by `load_file`."""
    return load(Path(path).read_bytes())
