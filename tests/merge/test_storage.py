"""How the base stores its weights: each form is read, summed and written again as itself, or refused by name."""

import json
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import GOLDEN
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lyco_core.errors import LycoError, MergeError
from lyco_core.merging import MergeOptions, Source, merge_checkpoint

ADAPTER = GOLDEN / "wan_t2v" / "lora.safetensors"
DELTAS = {key: delta.double() for key, delta in load_file(ADAPTER.with_suffix(".expected.safetensors")).items()}
KEY = next(iter(DELTAS))
MARKER = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)


def numbers() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {key: torch.randn(delta.shape) / 10 for key, delta in DELTAS.items()}


def merge(tmp_path: Path, tensors: dict[str, torch.Tensor], options: MergeOptions | None = None, **metadata: str):
    own = {key: tensor.clone() for key, tensor in tensors.items()}
    save_file(own, tmp_path / "base.safetensors", metadata or None)
    merge_checkpoint(
        tmp_path / "base.safetensors", [Source(ADAPTER)], tmp_path / "out.safetensors", options or MergeOptions()
    )
    # Copies, since Windows removes no file that is mapped.
    return {key: tensor.clone() for key, tensor in load_file(tmp_path / "out.safetensors").items()}


def blocks_of(shape: torch.Size, kind: str) -> tuple[int, ...]:
    """The shape of a scale of a weight (out, in)."""
    return {
        "number": (),
        "one": (1,),
        "rows": (shape[0],),
        "rows, 1": (shape[0], 1),
        "blocks": (shape[0], 4, 1),
    }[kind]


@pytest.mark.parametrize("kind", ["number", "one", "rows", "rows, 1", "blocks"])
@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_scaled_float8_in_every_layout(kind: str, name: str, dtype: torch.dtype, tmp_path: Path):
    tensors: dict[str, torch.Tensor] = {}
    exact: dict[str, torch.Tensor] = {}
    for key, weight in numbers().items():
        shape = blocks_of(weight.shape, kind)
        scale = torch.rand(shape) / 100 + 0.001
        groups = weight.view(weight.shape[0], shape[1] if len(shape) == 3 else 1, -1)
        per_group = scale.view(-1, *groups.shape[1:2], 1) if scale.numel() > 1 else scale.view(1, 1, 1)
        stored = (groups / per_group).clamp(-400, 400).to(dtype)
        stem = key.removesuffix("weight")
        tensors[key] = stored.view(weight.shape)
        tensors[f"{stem}{name}"], tensors[f"{stem}input_scale"], tensors[f"{stem}comfy_quant"] = (
            scale,
            torch.tensor(0.5),
            MARKER,
        )
        exact[key] = (stored.double() * per_group.double()).view(weight.shape) + DELTAS[key]
    merged = merge(tmp_path, tensors)
    assert list(merged) == list(load_file(tmp_path / "base.safetensors"))
    finfo = torch.finfo(dtype)
    for key, expected in exact.items():
        stem = key.removesuffix("weight")
        scale = merged[f"{stem}{name}"]
        assert scale.shape == tensors[f"{stem}{name}"].shape
        assert torch.equal(merged[f"{stem}input_scale"], torch.tensor(0.5))
        assert torch.equal(merged[f"{stem}comfy_quant"], MARKER)
        blocks = scale.shape[1] if scale.dim() == 3 else 1
        groups = expected.view(expected.shape[0] if scale.numel() > 1 else 1, blocks, -1)
        peak = groups.abs().amax(dim=2).view(scale.shape)
        assert torch.allclose(scale.double(), peak / finfo.max, rtol=1e-5)
        wide = scale.double().view(*groups.shape[:2], 1)
        error = (merged[key].double().view(groups.shape) * wide - groups).abs()
        assert bool((error <= 0.501 * finfo.eps * groups.abs() + wide * finfo.smallest_normal * finfo.eps).all())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16])
def test_plain_formats_round_to_the_nearest(dtype: torch.dtype, tmp_path: Path):
    tensors = {key: weight.to(dtype) for key, weight in numbers().items()}
    merged = merge(tmp_path, tensors)
    for key, delta in DELTAS.items():
        exact = tensors[key].double() + delta
        assert float((merged[key].double() != exact.float().to(dtype).double()).double().mean()) < 0.002


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 65504), (torch.float8_e4m3fn, 448)])
def test_a_result_out_of_range_is_refused(dtype: torch.dtype, limit: int, tmp_path: Path):
    tensors = {key: weight.to(dtype) for key, weight in numbers().items()}
    save_file(tensors, tmp_path / "base.safetensors")
    source = Source(ADAPTER, 1e7)
    with pytest.raises(MergeError, match=rf"{KEY.replace('.', '[.]')} .*the result reaches .* ends at {limit}"):
        merge_checkpoint(tmp_path / "base.safetensors", [source], tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_dtype_dequantises_and_leaves_no_marker(dtype: torch.dtype, tmp_path: Path):
    tensors: dict[str, torch.Tensor] = {"scaled_fp8": torch.tensor([], dtype=torch.float8_e4m3fn)}
    exact: dict[str, torch.Tensor] = {}
    for key, weight in numbers().items():
        stem = key.removesuffix("weight")
        tensors |= {key: (weight / 0.01).clamp(-448, 448).to(torch.float8_e4m3fn), f"{stem}comfy_quant": MARKER}
        tensors[f"{stem}scale_weight"] = torch.tensor(0.01)
        exact[key] = tensors[key].double() * float(torch.tensor(0.01)) + DELTAS[key]
    tensors["diffusion_model.blocks.0.norm1.weight"] = torch.randn(4).half()
    merged = merge(tmp_path, tensors, MergeOptions(dtype=dtype), _quantization_metadata='{"layers": {}}')
    assert set(merged) == {*exact, "diffusion_model.blocks.0.norm1.weight"}
    assert {tensor.dtype for tensor in merged.values()} == {dtype}
    for key, expected in exact.items():
        tolerance = 2e-7 if dtype == torch.float32 else 2**-8
        assert float((merged[key].double() - expected).abs().max()) <= tolerance * float(expected.abs().max())
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert "_quantization_metadata" not in file.metadata()


def beside(weight: torch.Tensor, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    stem = KEY.removesuffix("weight")
    return {KEY: weight} | {f"{stem}{name.replace('__', '.')}": tensor for name, tensor in more.items()}


def quant(name: str) -> torch.Tensor:
    return torch.tensor(list(json.dumps({"format": name}).encode()), dtype=torch.uint8)


PACKED = torch.zeros(8, 4, dtype=torch.uint8)
INTEGERS = torch.zeros(8, 8, dtype=torch.int8)
UNMERGEABLE = {
    "MXFP8 that no comfy_quant describes": beside(torch.zeros(8, 8).to(torch.float8_e4m3fn), weight_scale=PACKED),
    "INT8 that no comfy_quant describes": beside(INTEGERS, weight_scale=torch.ones(8)),
    "packed U8": beside(PACKED, weight_scale=PACKED, weight_scale_2=torch.ones(())),
    "bitsandbytes NF4": beside(PACKED, weight__absmax=torch.ones(4)),
    "bitsandbytes INT8": beside(INTEGERS, SCB=torch.ones(8)),
    "something_new": beside(INTEGERS, comfy_quant=quant("something_new")),
}


@pytest.mark.parametrize("title", UNMERGEABLE)
def test_formats_that_hold_no_numbers_are_refused_by_name(title: str, tmp_path: Path):
    tensors = {key: weight for key, weight in numbers().items() if key != KEY} | UNMERGEABLE[title]
    with pytest.raises(MergeError, match=rf"{title}\); merge into the bf16, fp16 or fp8 checkpoint"):
        merge(tmp_path, tensors)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_damaged_gguf_base(tmp_path: Path):
    (tmp_path / "base.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(LycoError, match=r"base\.gguf: is GGUF of version 0, expected 2 or 3"):
        merge_checkpoint(tmp_path / "base.gguf", [Source(ADAPTER)], tmp_path / "out.gguf")


def test_stochastic_rounding_does_not_depend_on_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tensors = {key: weight.bfloat16() for key, weight in numbers().items()}
    first = merge(tmp_path, tensors, MergeOptions(seed=3))
    (tmp_path / "out.safetensors").unlink()
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    again = merge(tmp_path, tensors, MergeOptions(seed=3))
    (tmp_path / "out.safetensors").unlink()
    other = merge(tmp_path, tensors, MergeOptions(seed=4))
    assert all(torch.equal(first[key], again[key]) for key in tensors)
    assert any(not torch.equal(first[key], other[key]) for key in tensors)
    errors = torch.cat([(first[k].double() - tensors[k].double() - DELTAS[k]).flatten() for k in DELTAS])
    assert abs(float(errors.mean())) < 5 * float(errors.std()) / errors.numel() ** 0.5
