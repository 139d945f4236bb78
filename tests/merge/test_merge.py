"""Adapters merged into checkpoint files, against dense float64 deltas."""

import json
from pathlib import Path

import pytest
import torch
from lyco_testing.links import symlink
from lyco_testing.tables import GOLDEN
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lyco_core.cli import main
from lyco_core.errors import LycoError
from lyco_core.merging import Source, merge_checkpoint, round_to

FILES = sorted(p for p in GOLDEN.glob("*/*.safetensors") if ".expected" not in p.name)
every_file = pytest.mark.parametrize("adapter", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")


def base_for(adapter: Path, path: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Random weights of the shapes that a golden file's expected deltas have, and one that it leaves alone."""
    torch.manual_seed(0)
    deltas = load_file(adapter.with_suffix(".expected.safetensors"))
    tensors = {key: torch.randn(delta.shape).to(dtype) for key, delta in deltas.items()}
    tensors["vae.conv.weight"] = torch.randn(3, 3)
    save_file(tensors, path, {"note": "kept"})
    return tensors


@every_file
def test_merged_weights_are_the_sum(adapter: Path, tmp_path: Path):
    tensors = base_for(adapter, tmp_path / "base.safetensors")
    merge_checkpoint(tmp_path / "base.safetensors", [Source(adapter, 0.7)], tmp_path / "out.safetensors")
    merged = load_file(tmp_path / "out.safetensors")
    assert torch.equal(merged.pop("vae.conv.weight"), tensors["vae.conv.weight"])
    for key, delta in load_file(adapter.with_suffix(".expected.safetensors")).items():
        expected = tensors[key].double() + 0.7 * delta.double()
        # The rounding of the sum itself, in float32, and no more.
        assert float((merged[key] - expected).abs().max()) <= 2e-7 * float(expected.abs().max())


@every_file
def test_bfloat16_is_rounded_once(adapter: Path, tmp_path: Path):
    tensors = base_for(adapter, tmp_path / "base.safetensors", torch.bfloat16)
    sources = [Source(adapter, 0.5), Source(adapter, 0.25)]
    merge_checkpoint(tmp_path / "base.safetensors", sources, tmp_path / "out.safetensors")
    merged = load_file(tmp_path / "out.safetensors")
    for key, delta in load_file(adapter.with_suffix(".expected.safetensors")).items():
        exact = tensors[key].double() + 0.75 * delta.double()
        assert merged[key].dtype == torch.bfloat16
        assert float((merged[key] != exact.to(torch.bfloat16)).float().mean()) < 0.001


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_stochastic_rounding_is_unbiased(dtype: torch.dtype):
    value = 1.03
    rounded = round_to(torch.full((100_000,), value), dtype, torch.Generator().manual_seed(1)).double()
    assert len(rounded.unique()) == 2
    assert abs(float(rounded.mean()) - value) < 0.01 * float(rounded.max() - rounded.min())


def test_scaled_float8_gets_a_fresh_scale(tmp_path: Path):
    adapter = FILES[0]
    deltas = load_file(adapter.with_suffix(".expected.safetensors"))
    wide = {key: torch.randn(delta.shape) for key, delta in deltas.items()}
    tensors = {key: (w / 0.01).clamp(-448, 448).to(torch.float8_e4m3fn) for key, w in wide.items()}
    scales = {key.removesuffix("weight") + "scale_weight": torch.tensor(0.01) for key in deltas}
    save_file(tensors | scales, tmp_path / "base.safetensors")
    merge_checkpoint(tmp_path / "base.safetensors", [Source(adapter)], tmp_path / "out.safetensors")
    merged = load_file(tmp_path / "out.safetensors")
    for key, delta in deltas.items():
        exact = tensors[key].double() * 0.01 + delta.double()
        scale = merged[key.removesuffix("weight") + "scale_weight"]
        assert float(scale) == pytest.approx(float(exact.abs().max()) / 448, rel=1e-5)
        error = (merged[key].double() * scale - exact).abs()
        assert (error <= exact.abs() / 16 * 1.001 + float(scale) * 2**-9).all()


def test_command_line_records_what_went_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapter, base, out = FILES[0], tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    base_for(adapter, base)
    assert main(["merge", "--base", str(base), "--adapter", f"{adapter}@-0.5", "-o", str(out)]) == 0
    assert "strength -0.5" in capsys.readouterr().out
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["note"] == "kept"
    assert json.loads(metadata["lyco_merge"])[0]["adapters"][0]["strength"] == -0.5


def test_refusals_leave_nothing(tmp_path: Path):
    adapter, base = FILES[0], tmp_path / "base.safetensors"
    base_for(adapter, base)
    before = base.read_bytes()
    symlink(base, tmp_path / "link.safetensors")
    for output in (base, tmp_path / "link.safetensors", tmp_path):
        with pytest.raises(LycoError):
            merge_checkpoint(base, [Source(adapter)], output, overwrite=True)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_checkpoint(base, [Source(adapter)], tmp_path / "out.safetensors", progress=stop)
    assert base.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.safetensors", "link.safetensors"]
