"""File to file with what is computed from the weight: whole weights, whatever the size of a band."""

from pathlib import Path

import pytest
import torch
from lyco_testing.stored_forms import SAID, marker, numbers, random_codes
from lyco_testing.tables import lokr, random
from safetensors.torch import load_file, save_file

import lyco_core as lyco
from lyco_core.cli import main
from lyco_core.formats import parse
from lyco_core.merging import Source, merge_checkpoint
from lyco_core.quantized import reading

Q, CONV = "diffusion_model.blocks.0.self_attn.q", "diffusion_model.patch_embedding"


def files() -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(8)
    plain = lokr(Q, 64, 64, random)
    conv = {f"{CONV}.lora_up.weight": random(64, 2, 1, 1, 1), f"{CONV}.lora_down.weight": random(2, 16, 1, 2, 2)}
    return {
        "DoRA, outputs": plain | {f"{Q}.dora_scale": random(64, 1).abs() + 4},
        "DoRA, inputs": plain | {f"{Q}.dora_scale": random(1, 64).abs() + 4},
        "DoRA of a convolution, inputs": conv | {f"{CONV}.dora_scale": random(1, 16, 1, 1, 1).abs() + 4},
        "GLoRA": {f"{Q}.{n}.weight": random(*((64, 3) if n[1] == "1" else (3, 64))) for n in ("a1", "a2", "b1", "b2")},
        "IA3 of a convolution, inputs": {f"{CONV}.weight": random(1, 16, 1, 1, 1), f"{CONV}.on_input": torch.tensor(1)},
        "magnitudes for the weight's norm": plain
        | {f"{Q}.dora_scale": random(64, 1).abs() + 4, f"{Q}.initial_norm": torch.ones(64)},
        "BOFT": {f"{Q}.oft_blocks": random(4, 16, 4, 4) / 5},
        "OFTv2": {f"{Q}.oft_R.weight": random(16, 6), f"{Q}.oft_R.scaled_oft": torch.tensor(True)},
        "OFTv2 with DoRA, one block for all": {
            f"{Q}.oft_R.weight": random(1, 28) / 9,
            f"{Q}.dora_scale": random(64, 1).abs() + 4,
            f"{Q}.initial_norm": random(64, 1).abs() + 4,
        },
        "BoRA": plain | {f"{Q}.bora_m_row": random(64, 1).abs() + 4, f"{Q}.bora_m_col": random(1, 64).abs() + 4},
        "a difference with a bias": {f"{Q}.diff": random(64, 64), f"{Q}.diff_b": random(64)},
    }


def base() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    linear = {f"blocks.0.{a}.{x}": (64, 64) for a in ("self_attn", "cross_attn") for x in "qkvo"}
    shapes = linear | {"blocks.0.ffn.0": (160, 64), "blocks.0.ffn.2": (64, 160), "patch_embedding": (64, 16, 1, 2, 2)}
    tensors = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    return tensors | {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", files())
@pytest.mark.parametrize("band_bytes", [256, 2**23])
def test_merged_is_the_algorithms_weight(name, band_bytes, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(reading, "FILE_BAND_BYTES", band_bytes)
    tensors, before = files()[name], base()
    save_file(before, tmp_path / "base.safetensors")
    save_file(tensors, tmp_path / "a.safetensors")
    merge_checkpoint(
        tmp_path / "base.safetensors", [Source(tmp_path / "a.safetensors", 0.7)], tmp_path / "out.safetensors"
    )
    merged = load_file(tmp_path / "out.safetensors")
    changed = 0
    for path, adapter in parse(tensors, {}).adapters.items():
        key = path if path.endswith(".bias") else f"{path}.weight"
        expected = adapter.add_to_(before[key].clone(), 0.7)
        assert float((merged[key] - expected).norm() / expected.norm()) < 1e-6
        assert not torch.equal(merged[key], before[key])
        changed += 1
    assert sum(not torch.equal(merged[key], before[key]) for key in before) == changed


def test_two_act_one_after_the_other(tmp_path: Path):
    """As the patches of two loaders do."""
    both = [files()["DoRA, outputs"], files()["BOFT"]]
    save_file(base(), tmp_path / "base.safetensors")
    for n, tensors in enumerate(both):
        save_file(tensors, tmp_path / f"{n}.safetensors")
    sources = [Source(tmp_path / f"{n}.safetensors") for n in range(2)]
    merge_checkpoint(tmp_path / "base.safetensors", sources, tmp_path / "out.safetensors")
    expected = base()["blocks.0.self_attn.q.weight"]
    for tensors in both:
        next(iter(parse(tensors, {}).adapters.values())).add_to_(expected)
    found = load_file(tmp_path / "out.safetensors")["blocks.0.self_attn.q.weight"]
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "int8_convrot"])
@pytest.mark.parametrize("name", files())
def test_its_delta_is_told_by_the_weight(name: str, stored: str, tmp_path: Path):
    """To float32's last bits, where the difference of two float32 files has lost some."""
    tensors, model, before = files()[name], {}, {}
    for number, (key, weight) in enumerate(base().items()):
        if stored == "int8_convrot" and key.endswith("weight") and weight.dim() == 2:
            parts, path = random_codes(stored, *weight.shape, number), key.removesuffix(".weight")
            model |= {f"{path}.{role}": part for role, part in parts.items()}
            model[f"{path}.comfy_quant"] = marker(SAID[stored])
            before[key] = numbers(stored, parts, len(weight))
        else:
            model[key] = weight if stored == "float32" else weight.bfloat16()
            before[key] = model[key].double()
    save_file(model, tmp_path / "base.safetensors")
    save_file(tensors, tmp_path / "a.safetensors")
    arguments = [str(tmp_path / "a.safetensors"), "--model", str(tmp_path / "base.safetensors")]
    assert main(["delta", *arguments, "-o", str(tmp_path / "d.safetensors")]) == 0
    found = load_file(tmp_path / "d.safetensors")
    by_library = lyco.delta(tmp_path / "a.safetensors", model=tmp_path / "base.safetensors")
    adapters = parse(tensors, {}).adapters
    assert len(found) == len(adapters)
    for path, adapter in adapters.items():
        key = path if path.endswith(".bias") else f"{path}.weight"
        expected = adapter.add_to_(before[key].clone()) - before[key]
        assert float((found[key] - expected).norm() / expected.norm()) < 1e-6
        assert torch.equal(found[key], by_library[key])


def test_there_is_no_delta_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_file(files()["DoRA, outputs"], tmp_path / "a.safetensors")
    arguments = ["delta", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "d.safetensors")]
    assert main([*arguments, "--architecture", "wan"]) == 1
    error = capsys.readouterr().err
    assert "a.safetensors: LoKr with DoRA changes a weight by that weight's own numbers" in error
    assert "give the checkpoint that it was trained on with --model" in error
    assert not (tmp_path / "d.safetensors").exists()


def test_a_weight_that_nobody_can_read_has_no_delta(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = base() | {"blocks.0.self_attn.q.SCB": torch.ones(2)}
    save_file(model, tmp_path / "base.safetensors")
    save_file(files()["BOFT"], tmp_path / "a.safetensors")
    arguments = [str(tmp_path / "a.safetensors"), "--model", str(tmp_path / "base.safetensors")]
    assert main(["delta", *arguments, "-o", str(tmp_path / "d.safetensors")]) == 1
    error = capsys.readouterr().err
    assert "base.safetensors: blocks.0.self_attn.q.weight: is stored as" in error
    assert not (tmp_path / "d.safetensors").exists()
