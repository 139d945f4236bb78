"""Sharded bases and outputs, whole checkpoints, other layouts' names, several adapters in one pass."""

import json
from pathlib import Path

import pytest
import torch
from lyco_testing.checkpoints import INDEX, shard, weights
from lyco_testing.tables import GOLDEN
from safetensors.torch import load_file, save_file

from lyco_core.cli import main
from lyco_core.delta_weights import write_delta
from lyco_core.merging import MergeOptions, Source, merge_checkpoint

LORA, LOHA = GOLDEN / "wan_t2v" / "lora.safetensors", GOLDEN / "wan_t2v" / "loha.safetensors"
LOKR = GOLDEN / "z_image" / "lokr.safetensors"


def deltas(adapter: Path) -> dict[str, torch.Tensor]:
    return {key: delta.double() for key, delta in load_file(adapter.with_suffix(".expected.safetensors")).items()}


def assert_merged(merged: dict[str, torch.Tensor], base: dict[str, torch.Tensor], *adapters: Path) -> None:
    assert merged.keys() == base.keys()
    for key, tensor in base.items():
        exact = tensor.double() + sum(deltas(adapter).get(key, torch.zeros(())) for adapter in adapters)
        assert float((merged[key].double() - exact).abs().max()) < 3e-7 * float(exact.abs().max())


@pytest.mark.parametrize("name", ["", INDEX, "model-00002-of-00003.safetensors"])
@pytest.mark.parametrize("index", [True, False])
def test_shards_into_one_file(name: str, index: bool, tmp_path: Path):
    if not index and name != "model-00002-of-00003.safetensors":
        pytest.skip("without an index, shards are known by one of their names")
    shard(weights(), tmp_path / "base", 3, index=index)
    merge_checkpoint(tmp_path / "base" / name, [Source(LORA)], tmp_path / "out.safetensors")
    assert_merged(load_file(tmp_path / "out.safetensors"), weights(), LORA)


def read_sharded(index: Path) -> dict[str, torch.Tensor]:
    parsed = json.loads(index.read_text())
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted(set(parsed["weight_map"].values())):
        found = load_file(index.parent / name)
        assert all(parsed["weight_map"][key] == name for key in found)
        tensors |= found
    assert parsed["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors.values())
    assert parsed["weight_map"].keys() == tensors.keys()
    return tensors


def test_shards_into_shards_like_the_bases(tmp_path: Path):
    shard(weights(), tmp_path / "base", 3)
    merge_checkpoint(tmp_path / "base", [Source(LORA)], tmp_path / "out.safetensors.index.json")
    assert_merged(read_sharded(tmp_path / "out.safetensors.index.json"), weights(), LORA)
    for n in (1, 2, 3):
        name = f"-0000{n}-of-00003.safetensors"
        assert load_file(tmp_path / f"out{name}").keys() == load_file(tmp_path / "base" / f"model{name}").keys()


def test_split_by_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_file(weights(), tmp_path / "base.safetensors")
    size = sum(4 * tensor.numel() for tensor in weights().values())
    command = ["merge", "--base", str(tmp_path / "base.safetensors"), "--adapter", str(LORA)]
    command += ["-o", str(tmp_path / "out.safetensors"), "--max-shard-size", f"{size // 4000}KB"]
    assert main(command) == 0
    assert "out.safetensors.index.json: " in capsys.readouterr().out
    assert_merged(read_sharded(tmp_path / "out.safetensors.index.json"), weights(), LORA)
    files = sorted(tmp_path.glob("out-*.safetensors"))
    assert len(files) >= 4
    assert all(path.stat().st_size < size / 4 + 20_000 for path in files)
    # What was written is a base again.
    merge_checkpoint(files[0], [Source(LORA, -1)], tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert all(torch.allclose(back[key], tensor, atol=1e-6) for key, tensor in weights().items())


def test_several_adapters_of_different_formats_in_one_pass(tmp_path: Path):
    save_file(weights(), tmp_path / "base.safetensors")
    sources = [Source(LORA), Source(LOHA)]
    merge_checkpoint(tmp_path / "base.safetensors", sources, tmp_path / "out.safetensors")
    assert_merged(load_file(tmp_path / "out.safetensors"), weights(), LORA, LOHA)


def test_a_whole_checkpoint_passes_the_rest_through(tmp_path: Path):
    prefixed = {f"model.{key}": tensor for key, tensor in weights().items()}
    rest = {
        "first_stage_model.conv.weight": torch.randn(3, 3).half(),
        "text_encoders.t5.scaled_fp8": torch.tensor([], dtype=torch.float8_e4m3fn),
        "text_encoders.t5.w.weight": torch.randn(4, 4).to(torch.float8_e4m3fn),
        "position_ids": torch.arange(77),
    }
    save_file(prefixed | rest, tmp_path / "base.safetensors", {"prompt": "{}"})
    options = MergeOptions(dtype=torch.bfloat16)
    merge_checkpoint(tmp_path / "base.safetensors", [Source(LORA)], tmp_path / "out.safetensors", options)
    merged = load_file(tmp_path / "out.safetensors")
    assert list(merged) == list(load_file(tmp_path / "base.safetensors"))
    for key, tensor in rest.items():
        assert merged[key].dtype == tensor.dtype
        assert torch.equal(merged[key].view(torch.uint8), tensor.view(torch.uint8))
    for key, delta in deltas(LORA).items():
        exact = prefixed[f"model.{key}"].double() + delta
        assert float((merged[f"model.{key}"] != exact.to(torch.bfloat16)).float().mean()) < 0.001


@pytest.mark.parametrize("adapter", [LORA, LOKR, GOLDEN / "hunyuan_video" / "lokr_factor4.safetensors"])
@pytest.mark.parametrize("layout", ["comfyui", "musubi", "diffusers"])
def test_the_bases_names_are_recognised(adapter: Path, layout: str, tmp_path: Path):
    write_delta(adapter, tmp_path / "delta.safetensors", layout=layout)  # type: ignore[arg-type]
    delta = {key.removeprefix("diffusion_model."): t for key, t in load_file(tmp_path / "delta.safetensors").items()}
    torch.manual_seed(0)
    base = {key: torch.randn(tensor.shape) for key, tensor in delta.items()}
    save_file(base, tmp_path / "base.safetensors")
    merge_checkpoint(tmp_path / "base.safetensors", [Source(adapter, 0.5)], tmp_path / "out.safetensors")
    for key, merged in load_file(tmp_path / "out.safetensors").items():
        exact = base[key].double() + 0.5 * delta[key].double()
        assert float((merged.double() - exact).abs().max()) < 3e-7 * float(exact.abs().max())


def test_patterns_choose_modules(tmp_path: Path):
    save_file(weights(), tmp_path / "base.safetensors")
    command = ["merge", "--base", str(tmp_path / "base.safetensors"), "--adapter", str(LORA)]
    command += ["-o", str(tmp_path / "out.safetensors"), "--exclude", r".*\.ffn\..*"]
    assert main([*command, "--block-strength", r"blocks\.0\..*=0.5"]) == 0
    merged = load_file(tmp_path / "out.safetensors")
    for key, tensor in weights().items():
        factor = 0.0 if ".ffn." in key else 0.5 if ".blocks.0." in key else 1.0
        exact = tensor.double() + factor * deltas(LORA)[key]
        assert float((merged[key].double() - exact).abs().max()) < 3e-7 * float(exact.abs().max())
