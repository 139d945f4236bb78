"""Merging a Wan 1.3B-shaped checkpoint beside `cp` and stock ComfyUI's load, patch and save: time, memory, bytes.

python benchmarks/merging.py [--forms fp8 int8_convrot …]     # with forms: those beside bfloat16 instead
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from converting import make, peak
from timing import machine

MODEL = "wan21_t2v_1_3b"
ROUNDS = 5


def make_base(path: Path, dtype: str) -> None:
    """Random weights of the full-size table."""
    import torch
    from lyco_testing.tables import weights
    from safetensors.torch import save_file

    torch.manual_seed(0)
    shapes = {key.removeprefix("diffusion_model."): shape for key, shape in weights(MODEL).items()}
    shapes = {key.replace("modulation.weight", "modulation"): shape for key, shape in shapes.items()}
    shapes["head.head.weight"] = (64, 1536)  # ComfyUI knows a Wan by its head
    tensors = {key: (torch.randn(shape) / 30).to(getattr(torch, dtype)) for key, shape in shapes.items()}
    save_file(tensors, path, {"format": "pt"})


def make_quantized(path: Path, form: str) -> None:
    """The same with all Linears of the blocks in a form, as random codes."""
    from lyco_testing.gguf_files import gguf_bytes, random_q8, stored
    from lyco_testing.stored_forms import SAID, marker, random_codes
    from safetensors.torch import load_file, save_file

    plain = path.with_name("plain.safetensors")
    make_base(plain, "bfloat16")
    tensors = load_file(plain)
    plain.unlink()
    matrices = [k for k, t in tensors.items() if k.startswith("blocks.") and k.endswith("weight") and t.dim() == 2]
    if form == "q8_0":
        made = {key: random_q8(*t.shape, 0) if key in matrices else stored(t, "BF16") for key, t in tensors.items()}
        path.write_bytes(gguf_bytes(made))
        return
    for key in matrices:
        stem, (rows, columns) = key.removesuffix("weight"), tensors.pop(key).shape
        parts = random_codes(form, rows, columns, 0)
        said = {**SAID[form], "convrot_groupsize": 256}
        tensors |= {f"{stem}{role}": part for role, part in parts.items()} | {f"{stem}comfy_quant": marker(said)}
    save_file(tensors, path, {"format": "pt"})


def ours(base: str, adapter: str, output: str) -> None:
    """One merge."""
    from lyco_core.merging import Source, merge_checkpoint

    merge_checkpoint(base, [Source(adapter)], output)


def stock(base: str, adapter: str, output: str) -> None:
    """What a person does in ComfyUI: load the model, load the LoRA, save the model."""
    import comfy.lora
    import comfy.sd
    import comfy.utils

    model = comfy.sd.load_diffusion_model(base)
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    patched = model.clone()
    patches = comfy.lora.load_lora(comfy.utils.load_torch_file(adapter), names)
    taken = patched.add_patches(patches, 1.0)
    if len(taken) != len(patches) or not taken:
        raise SystemExit(f"stock ComfyUI took {len(taken)} of {len(patches)} patches")
    comfy.sd.save_checkpoint(output, patched)


def timed(side: str, *paths: str) -> None:
    """Run a side in this process, without the time of its imports: print seconds and peak memory."""
    import torch

    if side == "stock":
        from lyco_testing.comfy import find_comfyui, import_comfyui

        folder = find_comfyui()
        assert folder is not None
        import_comfyui(folder)
        import comfy.sd  # noqa: F401
    else:
        import lyco_core.merging  # noqa: F401
    torch.ones(1000, 1000).bfloat16().sum(dtype=torch.float32)  # starts torch's threads
    start = time.perf_counter()
    {"ours": ours, "stock": stock}[side](*paths)
    print(json.dumps([time.perf_counter() - start, peak()]))


def run(side: str, base: Path, adapter: Path, output: Path) -> tuple[float, int]:
    """Seconds and peak memory of one turn, the disk settled before it."""
    for path in (output, output.with_suffix(".copy")):
        path.unlink(missing_ok=True)
    os.sync()
    time.sleep(4)  # as long as the others import: a virtual machine's host takes freed memory back meanwhile
    if side == "cp":
        start = time.perf_counter()
        subprocess.run(["cp", base, output.with_suffix(".copy")], check=True)
        return time.perf_counter() - start, 0
    words = [sys.executable, __file__, side, str(base), str(adapter), str(output)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def untouched(base: Path, output: Path) -> str:
    """How many tensors a merge left alone, byte for byte."""
    from lyco_testing.tables import targets

    from lyco_core.io import Checkpoint

    with Checkpoint(base) as old, Checkpoint(output) as new:
        same = sum(
            old.holder[key].tensor(key).equal(new.holder[key].tensor(key)) for key in old.tensors.keys() & new.tensors
        )
        return f"{same} of {len(old.tensors)} tensors as in the base; the adapter has {len(targets(MODEL))} modules"


def beside_bfloat16(forms: list[str]) -> None:
    """Merges into each form beside one into bfloat16, by turns."""
    print(machine())
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("LYCO_BENCH_DIR")))
    try:
        adapter = folder / "lokr.safetensors"
        make(MODEL, "lokr", adapter, 16)
        plain = folder / "bf16.safetensors"
        make_base(plain, "bfloat16")
        for form in forms:
            suffix = ".gguf" if form == "q8_0" else ".safetensors"
            base = folder / f"base{suffix}"
            make_quantized(base, form)
            turns: dict[Path, list[tuple[float, int]]] = {plain: [], base: []}
            for _ in range(ROUNDS):
                for path, found in turns.items():
                    found.append(run("ours", path, adapter, folder / f"out{path.suffix}"))
            plain_s, seconds = (median(turn[0] for turn in found) for found in turns.values())
            plain_memory, memory = (max(turn[1] for turn in found) for found in turns.values())
            size = base.stat().st_size / 1e9
            print(f"{form:<13} {size:.2f} GB {seconds:6.2f} s, {seconds / plain_s:.2f} x bf16", end="")
            print(f"   peak {memory / 1e6:5.0f} MB, {memory / plain_memory:.2f} x bf16", flush=True)
            base.unlink()
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Print every comparison."""
    from lyco_testing.comfy import find_comfyui, why_not

    print(machine())
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("LYCO_BENCH_DIR")))
    try:
        base, output = folder / "base.safetensors", folder / "out.safetensors"
        make_base(base, "bfloat16")
        adapters = {}
        for kind, rank in (("lokr", 16), ("loha", 32)):
            adapters[kind] = folder / f"{kind}.safetensors"
            make(MODEL, kind, adapters[kind], rank)
        print(f"base {base.stat().st_size / 1e9:.2f} GB bfloat16; median of {ROUNDS} turns, lowest in brackets")
        times: dict[str, list[float]] = {"cp": [], "lokr": [], "loha": []}
        memory: dict[str, int] = {}
        for _ in range(ROUNDS):
            for name, seconds in times.items():
                side, adapter = ("cp", base) if name == "cp" else ("ours", adapters[name])
                found, peaked = run(side, base, adapter, output)
                seconds.append(found)
                memory[name] = max(memory.get(name, 0), peaked)
        copy = median(times["cp"])
        for name, seconds in times.items():
            print(
                f"{name:<5} {median(seconds):6.2f} s ({min(seconds):.2f})   {median(seconds) / copy:4.1f} x cp", end=""
            )
            print(f"   peak {memory[name] / 1e6:5.0f} MB" if memory[name] else "")
        print(untouched(base, output), flush=True)
        reason = why_not(find_comfyui())
        for name, adapter in adapters.items():
            if reason:
                print(f"stock ComfyUI: skipped, {reason}")
                break
            seconds, peaked = run("stock", base, adapter, output)
            ratio = seconds / median(times[name])
            size = output.stat().st_size / 1e9
            print(
                f"stock {name}: {seconds:5.1f} s, {ratio:.1f} x ours; peak {peaked / 1e9:.1f} GB, wrote {size:.2f} GB"
            )
        output.unlink(missing_ok=True)
        make_base(base, "float32")
        for name, adapter in adapters.items():
            seconds, peaked = run("ours", base, adapter, output)
            print(f"{base.stat().st_size / 1e9:.2f} GB float32, {name}: {seconds:5.2f} s, peak {peaked / 1e6:5.0f} MB")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--forms"]:
        beside_bfloat16(sys.argv[2:])
    else:
        timed(*sys.argv[1:]) if len(sys.argv) > 1 else main()
