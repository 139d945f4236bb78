"""A file by blocks: how much it changes of each, and a file of them at other strengths, which has to be exact."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from lyco_testing.files import unmapped
from lyco_testing.tables import WRITERS, random
from safetensors.torch import load_file, save_file

import lyco_core as lyco
from lyco_core.adapter_reader import read_adapter_set
from lyco_core.combining import Addend, CombineOptions, combine_files
from lyco_core.comparing import strips
from lyco_core.errors import AdapterError, PlacementError
from lyco_core.merging import Source
from lyco_core.selection import Selection

MODULES = {
    **{f"blocks.{n}.self_attn.q": (64, 64) for n in range(3)},
    **{f"blocks.{n}.ffn.0": (160, 64) for n in (1, 2)},
    "head.head": (64, 64),
}


def write(path: Path, algorithm: str = "lora", dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(3)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in MODULES.items():
        tensors |= WRITERS[algorithm](f"lora_unet_{name.replace('.', '_')}", *shape, random)
    save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, path)
    return path


def changes(path: Path) -> dict[str, torch.Tensor]:
    return {key: delta.double() for key, delta in lyco.delta(path).items()}


def save(path: Path, new: Path, strengths: list[tuple[str, float]]) -> None:
    combine_files([Addend(Source(path), Selection.of([], [], strengths))], new, CombineOptions())


@pytest.mark.parametrize("algorithm", sorted(WRITERS))
def test_blocks_and_kinds_of_modules(algorithm: str, tmp_path: Path):
    path = write(tmp_path / "a.safetensors", algorithm)
    norms = {key.removeprefix("diffusion_model."): float(delta.norm()) for key, delta in changes(path).items()}

    def of(*parts: str) -> float:
        return pytest.approx(
            math.hypot(*(norm for key, norm in norms.items() if all(p in key for p in parts))), rel=1e-5
        )

    found = strips(read_adapter_set(path))
    assert (found["norm"], found["unmeasured"]) == (of(""), 0)
    blocks, other = found["blocks"]
    assert (blocks["name"], blocks["pattern"]) == ("blocks", (r"blocks\.", r"\..*"))
    assert blocks["cells"] == [(n, 1 + (n > 0), of(f"blocks.{n}.")) for n in range(3)]
    assert (other["name"], other["pattern"], other["cells"]) == ("other", None, [(0, 1, of("head"))])
    kinds = {name: (count, norm) for name, count, norm in found["kinds"]}
    assert kinds["blocks.*.ffn.0"] == (2, of("ffn.0"))
    norms_in_order = [norm for *_, norm in found["kinds"]]
    assert norms_in_order == sorted(norms_in_order, reverse=True)


def test_a_bias_is_no_weight(tmp_path: Path):
    path = write(tmp_path / "a.safetensors")
    without = strips(read_adapter_set(path))
    tensors = unmapped(path)
    tensors["lora_unet_blocks_1_ffn_0.diff_b"] = torch.full((160,), 2.0)
    save_file(tensors, path)
    found = strips(read_adapter_set(path))
    assert found["norm"] == pytest.approx(math.hypot(without["norm"], 2 * math.sqrt(160)), rel=1e-5)
    assert dict(kind[::2] for kind in found["kinds"])["blocks.*.ffn.0.bias"] == pytest.approx(2 * math.sqrt(160))
    assert found["blocks"][0]["cells"][1][1] == 3


def test_what_depends_on_the_model_is_counted_and_not_measured(tmp_path: Path):
    path = write(tmp_path / "a.safetensors")
    tensors = unmapped(path)
    tensors["lora_unet_blocks_0_self_attn_q.dora_scale"] = torch.ones(64, 1)
    save_file(tensors, path)
    found = strips(read_adapter_set(path))
    assert found["unmeasured"] == 1
    assert found["blocks"][0]["cells"][0] == (0, 1, None)
    assert math.isfinite(found["norm"])
    with pytest.raises(PlacementError, match="whose change depends on the weight"):
        save(path, tmp_path / "b.safetensors", [(r"blocks\.0\..*", 0.5)])
    save(path, tmp_path / "b.safetensors", [(r"blocks\.1\..*", 0.5)])  # as it was trained it is kept
    assert "lora_unet_blocks_0_self_attn_q.dora_scale" in load_file(tmp_path / "b.safetensors")


def test_a_change_beyond_float32(tmp_path: Path):
    path = write(tmp_path / "a.safetensors")
    save_file({key: tensor * 1e25 for key, tensor in unmapped(path).items()}, path)
    with pytest.raises(AdapterError, match="too large to be measured"):
        strips(read_adapter_set(path))


def test_it_ends_where_nobody_waits(tmp_path: Path):
    turns = itertools.count()

    def leave() -> None:
        if next(turns) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        strips(read_adapter_set(write(tmp_path / "a.safetensors")), leave)
    assert next(turns) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("algorithm", sorted(WRITERS))
def test_saved_strengths_are_exact(algorithm: str, dtype: torch.dtype, tmp_path: Path):
    path, new = write(tmp_path / "a.safetensors", algorithm, dtype), tmp_path / "b.safetensors"
    save(path, new, [(r"blocks\.\d+\..*", 0.35), (r"blocks\.2\..*", 0.0), ("head.*", -1.7)])
    before, after = changes(path), changes(new)
    expected = {k: d * (-1.7 if "head" in k else 0.35) for k, d in before.items() if "blocks.2." not in k}
    assert after.keys() == expected.keys()
    for key, change in expected.items():
        assert float((after[key] - change).norm()) < 2e-6 * float(change.norm()), key
