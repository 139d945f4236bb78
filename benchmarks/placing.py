"""How long it takes to tell what a full-size file is and where it goes, and to inspect 5 GB."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from timing import alternate, machine


def main() -> None:
    """Print the times for every model's full-size table."""
    from lyco_testing.tables import MODELS, musubi_file, targets, weights
    from safetensors.torch import save_file

    from lyco_core.adapter_reader import load_adapter_set, outline_adapter_set
    from lyco_core.inspection import inspect_file
    from lyco_core.io import SafetensorsFile
    from lyco_core.placement import place

    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            import torch

            path = Path(folder) / f"{model}.safetensors"
            modules = targets(model)
            save_file(musubi_file(modules, "lokr", lambda *shape: torch.ones(shape, dtype=torch.bfloat16)), path)
            shapes = weights(model)
            found = alternate(
                {
                    "place": lambda p=path, s=shapes: place(outline_adapter_set(p), s),
                    "load": lambda p=path: load_adapter_set(p),
                },
                rounds=5,
            )
            print(
                f"{model:<20} {len(modules):>4} modules: detected and placed in {found['place']:6.1f} ms, "
                f"read whole in {found['load']:6.1f} ms"
            )
        big = Path(folder) / "checkpoint.safetensors"
        _sparse(big, weights("wan21_t2v_14b"))
        found = alternate({"inspect": lambda: inspect_file(big)}, rounds=5)
        with SafetensorsFile(big) as file:
            size = file.header.file_bytes / 1e9
        print(f"inspect of a checkpoint of {size:.1f} GB: {found['inspect']:.1f} ms")


def _sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A checkpoint of the right header and size whose data is a hole in the file."""
    import math

    table, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        table[key.removeprefix("diffusion_model.")] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)


if __name__ == "__main__":
    main()
