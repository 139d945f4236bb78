"""Loading, patching, runtime mode and merging beside stock ComfyUI, LyCORIS and PEFT; writes docs/performance.md.

Every figure of the page is from one run of this file: sides take turns in one process, merges in one each.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import tempfile
from pathlib import Path

import merging
from converting import make
from performance_page import write_page
from runtime_layers import measured_layers
from timing import alternate, machine

MODEL = "wan21_t2v_1_3b"


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing done by several."""

    what: str
    times: dict[str, float]
    """Who -> milliseconds."""
    note: str = ""


def imported():
    """The pack's `nodes.host` in a process with ComfyUI."""
    from lyco_testing.comfy import find_comfyui, import_comfyui, import_pack, why_not

    found = find_comfyui()
    if reason := why_not(found):
        raise SystemExit(reason)
    assert found is not None
    import_comfyui(found)
    return importlib.import_module(f"{import_pack().__name__}.nodes.host")


def comfy_model(path: Path):
    """The Wan 1.3B-shaped checkpoint in ComfyUI."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(path))


def stock_loaded(model, path: Path):
    """What stock ComfyUI's LoraLoaderModelOnly does."""
    import comfy.sd
    import comfy.utils

    return comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(path)), 0.5, 0)[0]


def ours_loaded(host, model, path: Path):
    """What *Load LoHa/LoKr* does, the file read anew."""
    host.files._cache.clear()
    return host.load_onto(model, None, path.name, 0.5, partial=False).model


def patched(patcher) -> None:
    """All its patches into the weights, and out of them again."""
    patcher.patch_model(device_to=None)
    patcher.unpatch_model(device_to=None)


def model_rows(folder: Path, host) -> list[Row]:
    """Loading onto, and patching, a whole model."""
    import folder_paths

    folder_paths.folder_names_and_paths["loras"] = ([str(folder)], {".safetensors"})
    base = folder / "base.safetensors"
    rows: list[Row] = []
    for dtype in ("bfloat16", "float32"):
        merging.make_base(base, dtype)
        model = comfy_model(base)
        for kind, rank in (("lokr", 16), ("loha", 32)):
            path = folder / f"{kind}.safetensors"
            if not path.exists():
                make(MODEL, kind, path, rank)
            title = f"{'LoKr' if kind == 'lokr' else 'LoHa'} rank {rank}"
            if dtype == "bfloat16":
                sides = {
                    "lyco": lambda p=path, m=model: ours_loaded(host, m, p),
                    "ComfyUI": lambda p=path, m=model: stock_loaded(m, p),
                }
                rows.append(
                    Row(f"load onto Wan 1.3B, {title}", alternate(sides, rounds=5), "file to patches, 300 modules")
                )
            ours, stock = ours_loaded(host, model, path), stock_loaded(model, path)
            if not len(ours.patches) == len(stock.patches) == 300:
                raise SystemExit(f"{len(ours.patches)} and {len(stock.patches)} patches")
            nothing = ours.clone()
            nothing.patches = {}
            nothing.add_patches({key: found[0][1] for key, found in ours.patches.items()}, 0.0)
            times = alternate(
                {
                    "lyco": lambda o=ours: patched(o),
                    "ComfyUI": lambda s=stock: patched(s),
                    "shared": lambda n=nothing: patched(n),
                },
                rounds=3,
            )
            note = f"{times['shared']:.0f} ms of both are ComfyUI's own: backup, casts, stochastic rounding"
            rows.append(Row(f"patch Wan 1.3B ({dtype}), {title}", times, note))
    return rows


def merge_rows(folder: Path) -> list[Row]:
    """A checkpoint file with an adapter in it."""
    base, output = folder / "base.safetensors", folder / "out.safetensors"
    merging.make_base(base, "bfloat16")
    rows: list[Row] = []
    for kind, rank in (("lokr", 16), ("loha", 32)):
        path = folder / f"{kind}.safetensors"
        make(MODEL, kind, path, rank)
        sides = {"lyco": [], "ComfyUI": [], "cp": []}
        for turn in range(3):
            for side, name in (("lyco", "ours"), ("ComfyUI", "stock"), ("cp", "cp")):
                if side != "ComfyUI" or turn == 0:
                    sides[side].append(merging.run(name, base, path, output))
        times = {side: 1000 * min(seconds for seconds, _ in found) for side, found in sides.items()}
        peaks = {side: max(memory for _, memory in found) / 1e9 for side, found in sides.items()}
        note = f"2.8 GB file to file; peak memory {peaks['lyco']:.1f} GB against {peaks['ComfyUI']:.1f} GB"
        rows.append(
            Row(f"merge into Wan 1.3B (bfloat16), {'LoKr' if kind == 'lokr' else 'LoHa'} rank {rank}", times, note)
        )
    return rows


def main() -> None:
    """Measure everything, print it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-merging", action="store_true", help="leave out what takes minutes")
    options = parser.parse_args()
    host = imported()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [Row(*found) for found in measured_layers()]
        rows += model_rows(folder, host)
        if not options.skip_merging:
            rows += merge_rows(folder)
    write_page(machine(), rows)


if __name__ == "__main__":
    main()
