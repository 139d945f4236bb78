"""What a merged file says of itself, and what it may not say any more."""

import json
from pathlib import Path

import torch
from lyco_testing.checkpoints import weights
from lyco_testing.files import unmapped
from lyco_testing.tables import GOLDEN
from safetensors import safe_open
from safetensors.torch import save_file

from lyco_core.merging import MergeOptions, Source, merge_checkpoint
from lyco_core.quantized.rounding import generator_for

ADAPTER = GOLDEN / "wan_t2v" / "lora.safetensors"


def merged(tmp_path: Path, tensors: dict[str, torch.Tensor], options: MergeOptions | None = None, **metadata: str):
    save_file(tensors, tmp_path / "base.safetensors", metadata or None)
    out = tmp_path / "out.safetensors"
    merge_checkpoint(tmp_path / "base.safetensors", [Source(ADAPTER)], out, options or MergeOptions(), overwrite=True)
    with safe_open(out, "pt") as file:
        return unmapped(out), file.metadata()


def test_hashes_of_the_weights_as_they_were_do_not_stay(tmp_path: Path):
    stale = dict.fromkeys(
        ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash", "modelspec.date"), "0x" + "ab" * 32
    )
    kept = {"modelspec.title": "a base", "format": "pt"}
    _, metadata = merged(tmp_path, weights(), **stale, **kept)
    assert metadata.keys() == {*kept, "lyco_merge"}
    assert {name: metadata[name] for name in kept} == kept
    assert not [value for value in metadata.values() if "ab" * 32 in value]


def test_markers_of_scaled_float8_go_with_it(tmp_path: Path):
    """Musubi writes one beside the weights, ComfyUI beneath the model's prefix: plain numbers would be misread."""
    marker = torch.zeros(2).to(torch.float8_e4m3fn)
    numbers = {key: weight / 10 for key, weight in weights().items()}
    tensors = {key: weight.to(torch.float8_e4m3fn) for key, weight in numbers.items()}
    scales = {key.removesuffix("weight") + "scale_weight": torch.tensor(0.5) for key in numbers}
    markers = {"scaled_fp8": marker, "diffusion_model.scaled_fp8": marker.clone()}
    plain, _ = merged(tmp_path, tensors | scales | markers, MergeOptions(dtype=torch.bfloat16))
    assert plain.keys() == numbers.keys()
    kept, _ = merged(tmp_path, tensors | scales | markers)
    assert kept.keys() == {*tensors, *scales, *markers}


def test_every_band_draws_its_own_random_numbers(tmp_path: Path, monkeypatch):
    """Else rounding repeats itself down a weight, and errors add up in what is summed over its rows."""
    monkeypatch.setattr("lyco_core.quantized.reading.FILE_BAND_BYTES", 4 * 64 * 16)  # 16 rows of 64
    halves = {key: torch.full_like(weight, 1 + 2**-9) for key, weight in weights().items()}
    save_file(
        {k: t * 0 for k, t in unmapped(ADAPTER).items() if "lora_up" in k}
        | {k: t for k, t in unmapped(ADAPTER).items() if "lora_up" not in k},
        tmp_path / "none.safetensors",
    )
    save_file(halves, tmp_path / "base.safetensors")
    out = tmp_path / "out.safetensors"
    options = MergeOptions(dtype=torch.bfloat16, seed=5)
    merge_checkpoint(tmp_path / "base.safetensors", [Source(tmp_path / "none.safetensors")], out, options)
    bands = [band for weight in unmapped(out).values() for band in weight.split(16) if band.shape == (16, 64)]
    assert len(bands) > 40
    assert len({band.float().numpy().tobytes() for band in bands}) == len(bands)
    ups = torch.stack([(band > 1).float() for band in bands])
    assert abs(float(ups.mean()) - 0.25) < 0.01


def test_random_numbers_depend_on_the_seed_the_weight_and_the_band():
    draws = {
        case: torch.rand(4, generator=generator_for(*case, "cpu")).tolist()
        for case in [(1, "a", 0), (1, "a", 16), (1, "b", 0), (2, "a", 0)]
    }
    assert len({tuple(numbers) for numbers in draws.values()}) == len(draws)
    assert draws[1, "a", 0] == torch.rand(4, generator=generator_for(1, "a", 0, "cpu")).tolist()
    assert generator_for(None, "a", 0, "cpu") is None


def test_the_record_lists_every_merge(tmp_path: Path):
    _, metadata = merged(tmp_path, weights())
    once = json.loads(metadata["lyco_merge"])
    (tmp_path / "out.safetensors").replace(tmp_path / "base.safetensors")
    merge_checkpoint(
        tmp_path / "base.safetensors", [Source(ADAPTER, -1.0)], tmp_path / "out.safetensors", MergeOptions(seed=3)
    )
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        twice = json.loads(file.metadata()["lyco_merge"])
    assert twice[:1] == once
    assert [record["rounding"] for record in twice] == ["nearest", "stochastic, seed 3"]
