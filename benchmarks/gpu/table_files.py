"""Times from file to file: an adapter into a Wan-shaped checkpoint, and the difference of two as an adapter."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from lyco_testing.tiny_wan import wan_checkpoint

from gpu.check_files import adapter, changes_of, linears, save
from gpu.comfyui import ComfyUI
from gpu.device import Device
from gpu.results import TIMING, Results, Row
from lyco_core.approximate.extract import extract_file
from lyco_core.approximate.options import ExtractOptions, Limits
from lyco_core.merging import MergeOptions, Source, merge_checkpoint

RANK = 16
CHANGED = ("blocks.0.self_attn.q.weight", "blocks.0.ffn.0.weight")
"""What the difference is of."""


def run(device: Device, results: Results, comfyui: ComfyUI | None) -> None:
    """Both, on the device and on the CPU."""
    width, ffn, blocks = (1536, 8960, 10) if device.size >= 2048 else (256, 512, 2)
    places = {"lyco": str(device.device)} | ({} if device.kind == "cpu" else {"lyco on the CPU": "cpu"})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = {key: tensor.bfloat16() for key, tensor in wan_checkpoint(width, ffn, blocks).items()}
        path, output = save(folder / "base.safetensors", base), folder / "out.safetensors"
        size = path.stat().st_size / 1e9
        table = f"A file of {size:.2g} GB in bfloat16, merged into a new one"
        for algorithm, _ in results.in_time(table, dict.fromkeys(("lokr", "loha"))):
            with results.case(TIMING, f"merging, {algorithm}"):
                tensors = {key: tensor.bfloat16() for key, tensor in adapter(linears(base), algorithm).items()}
                other = save(folder / f"{algorithm}.safetensors", tensors)
                sides = {who: _merge(path, other, output, place) for who, place in places.items()}
                if comfyui is not None:
                    sides["ComfyUI"] = _stock(path, other, output)
                sides["copy"] = lambda: shutil.copyfile(path, output)
                results.add(Row(table, algorithm, device.alternate(sides, 2, once=True), device.peaks(sides)))
        few = {key: base[key] for key in base if key in CHANGED or not key.startswith("blocks.")}
        changes = changes_of(adapter(linears({key: base[key] for key in CHANGED}), "lora"))
        tuned = few | {key: (few[key].double() + change / 100).bfloat16() for key, change in changes.items()}
        ends = save(path, few), save(folder / "tuned.safetensors", tuned)
        table = f"The difference of {len(CHANGED)} weights of width {width} as an adapter of rank {RANK}"
        for algorithm, _ in results.in_time(table, dict.fromkeys(("lora", "lokr", "loha"))):
            with results.case(TIMING, f"extraction, {algorithm}"):
                # A LoHa is found by thousands of products: minutes on a CPU.
                here = {"lyco": places["lyco"]} if algorithm == "loha" else places
                sides = {who: _extract(*ends, output, algorithm, place) for who, place in here.items()}
                results.add(Row(table, algorithm, device.alternate(sides, 1, once=True), device.peaks(sides)))


def _merge(base: Path, other: Path, output: Path, place: str) -> Callable[[], object]:
    def merge() -> None:
        output.unlink(missing_ok=True)
        merge_checkpoint(base, [Source(other)], output, MergeOptions(device=place))

    return merge


def _extract(base: Path, tuned: Path, output: Path, algorithm: str, place: str) -> Callable[[], object]:
    options = ExtractOptions(algorithm, Limits(rank=RANK), dtype=torch.bfloat16, device=place)

    def extract() -> None:
        output.unlink(missing_ok=True)
        extract_file(base, tuned, output, options)

    return extract


def _stock(base: Path, other: Path, output: Path) -> Callable[[], object]:
    """What a person does in ComfyUI: load the model, load the LoRA, save the model."""
    import comfy.model_management as management
    from merging import stock

    def merge() -> None:
        with torch.inference_mode():
            stock(str(base), str(other), str(output))
        management.unload_all_models()

    return merge
