"""File to file on the device: merged numbers against float64, extracted adapters against the CPU's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from lyco_testing import stored_forms, tiny_wan
from lyco_testing.hosted import DENSE
from lyco_testing.tables import dotted_file
from torch import Tensor

from gpu.comfyui import ComfyUI
from gpu.device import Device
from gpu.exactness import DTYPES, named, rounded_once
from gpu.results import Results
from lyco_core.approximate.extract import extract_file
from lyco_core.approximate.options import ExtractOptions, Limits
from lyco_core.formats import parse
from lyco_core.io import SafetensorsFile, TensorSpec, write_safetensors
from lyco_core.merging import MergeOptions, Source, merge_checkpoint

MERGING, EXTRACTION = "merging into a file", "extraction"
FORMS = ("fp8", "int8_row", "int8_convrot")
"""Of weights that no ComfyUI is needed for."""


def save(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write a file of tensors."""
    specs = [TensorSpec(key, tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()]
    write_safetensors(path, specs, tensors.values(), overwrite=True)
    return path


def load(path: Path) -> dict[str, Tensor]:
    """All tensors of a file."""
    with SafetensorsFile(path) as file:
        return {key: file.tensor(key).clone() for key in file.header.tensors}


def linears(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Path -> shape of those of the blocks."""
    found = {key.removesuffix(".weight"): t for key, t in tensors.items() if key.startswith("blocks.") and t.dim() == 2}
    return {path: (tensor.shape[0], tensor.shape[1]) for path, tensor in found.items()}


def adapter(shapes: Mapping[str, tuple[int, int]], algorithm: str) -> dict[str, Tensor]:
    """An adapter's tensors for these modules."""
    draws = torch.Generator().manual_seed(3)
    return dotted_file(shapes, algorithm, lambda *shape: torch.randn(shape, generator=draws) / 3)


def changes_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Key of a weight -> its dense change in float64."""
    found = parse(dict(tensors), {}).adapters
    return {f"{path.removeprefix('diffusion_model.')}.weight": DENSE[one.algorithm](one) for path, one in found.items()}


def run(device: Device, results: Results, _: ComfyUI | None) -> None:
    """All of it, in a folder of its own."""
    where = str(device.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = {f"{a}, {named(d)}": (a, d) for a in ("lora", "loha", "lokr") for d in DTYPES}
        for case, (algorithm, dtype) in results.in_time(MERGING, plain):
            with results.case(MERGING, case):
                _merged(results, case, folder, where, algorithm, dtype)
        for case, form in results.in_time(MERGING, {f"lokr, {form}": form for form in FORMS}):
            with results.case(MERGING, case):
                _merged_into_a_form(results, case, folder, where, form)
        for case, algorithm in results.in_time(EXTRACTION, {name: name for name in ("lora", "loha", "lokr")}):
            with results.case(EXTRACTION, case):
                _extracted(results, case, folder, where, algorithm)


def merged(folder: Path, base: Mapping[str, Tensor], change: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """What `lyco merge --device` makes of the two."""
    paths = save(folder / "base.safetensors", base), save(folder / "adapter.safetensors", change)
    output = folder / "merged.safetensors"
    output.unlink(missing_ok=True)
    merge_checkpoint(paths[0], [Source(paths[1])], output, MergeOptions(device=where))
    return load(output)


def _merged(results: Results, case: str, folder: Path, where: str, algorithm: str, dtype: torch.dtype) -> None:
    base = {key: tensor.to(dtype) for key, tensor in tiny_wan.wan_checkpoint().items()}
    tensors = adapter(linears(base), algorithm)
    changes = changes_of(tensors)
    found = merged(folder, base, tensors, where)
    exact = torch.cat([(base[key].double() + change).flatten() for key, change in changes.items()])
    rounded_once(results, MERGING, case, torch.cat([found[key].flatten() for key in changes]), exact)
    others = [key for key in base if key not in changes and not torch.equal(base[key], found[key])]
    results.holds(MERGING, f"{case}, the rest", not others, "every other tensor as it was", f"changed: {others[:3]}")


def _merged_into_a_form(results: Results, case: str, folder: Path, where: str, form: str) -> None:
    """No further from what is exact than the CPU's, whose rounding the tests hold to the form."""
    base = dict(tiny_wan.wan_checkpoint())
    shapes = linears(base)
    parts = {path: stored_forms.random_codes(form, *shape, seed=n) for n, (path, shape) in enumerate(shapes.items())}
    for path, stored in parts.items():
        base |= {f"{path}.{role}": tensor for role, tensor in stored.items()}
        base[f"{path}.comfy_quant"] = stored_forms.marker(stored_forms.SAID[form])
    tensors = adapter(shapes, "lokr")
    changes = changes_of(tensors)
    off: list[float] = []
    for place in (where, "cpu"):
        found = merged(folder, base, tensors, place)
        wrong = 0.0
        for path, (rows, _) in shapes.items():
            stored = {role: found[f"{path}.{role}"] for role in parts[path]}
            exact = stored_forms.numbers(form, parts[path], rows) + changes[f"{path}.weight"]
            wrong += float((stored_forms.numbers(form, stored, rows) - exact).square().sum())
        off.append(wrong**0.5)
    results.at_most(MERGING, case, off[0] / off[1], 1.001, "of the CPU's distance from what is exact")


def _extracted(results: Results, case: str, folder: Path, where: str, algorithm: str) -> None:
    """As near to the difference as the CPU's; of a change of a rank that fits, as near as float32 can tell."""
    base = tiny_wan.wan_checkpoint()
    changes = changes_of(adapter(linears(base), "lora"))
    tuned = base | {key: (base[key].double() + change).float() for key, change in changes.items()}
    paths = save(folder / "base.safetensors", base), save(folder / "tuned.safetensors", tuned)
    errors: list[float] = []
    for place in (where, "cpu"):
        output = folder / "extracted.safetensors"
        output.unlink(missing_ok=True)
        errors.append(extract_file(*paths, output, ExtractOptions(algorithm, Limits(rank=2), device=place)).error)
    results.at_most(EXTRACTION, case, errors[0], 1.02 * errors[1] + 2e-5, "relative error (the CPU's and 2 %)")
