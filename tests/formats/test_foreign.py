"""What stands in a file and is no adapter's is left out by name; what may be a part of one is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import loha, lokr, lora, random
from safetensors.torch import load_file, save_file
from torch import Tensor

from lyco_core.adapter_reader import load_adapter_set, outline_adapter_set
from lyco_core.card import card
from lyco_core.cli import main
from lyco_core.formats import parse
from lyco_core.inspection import inspect_file
from lyco_core.placement import place

FOREIGN: dict[str, Tensor] = {
    "bundle_emb.my-style.string_to_param.*": torch.ones(4, 768),
    "bundle_emb.my-style.clip_g": torch.full((4, 1280), float("nan")),
    "bundle_emb.my-style.clip_l": torch.ones(4, 768),
    "_aux.step": torch.tensor(100),
    "_aux.module.ema.weight": torch.ones(3),
    "lokr_factor": torch.tensor(8),
    "use_dora_flag": torch.tensor(False),
    "use_rslora_flag": torch.tensor(False),
}
LOOKS_LIKE_A_PART: dict[str, Tensor] = {
    "_aux.blocks.0.ffn.0.lora_A.weight": torch.ones(2, 8),
    "bundle_emb.blocks.0.lokr_w1": torch.ones(2, 2),
    "lora_unet_blocks_0_ffn_0.lokr_factor": torch.tensor(8),
    "lora_unet_blocks_0_ffn_0.lokr_unbalanced": torch.tensor(1),
    "lora_unet_blocks_0_ffn_0.dora_layer.weight": torch.ones(128),
    "use_rslora_flag": torch.tensor(True),
    "aux.weight": torch.ones(2),
    "lokr_factors": torch.tensor(8),
}


def adapter() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return lokr("lora_unet_blocks_0_ffn_0", 128, 64, random) | lokr("lora_unet_blocks_1_ffn_0", 128, 64, random)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    save_file(adapter() | FOREIGN, path)
    return path


def test_foreign_keys_are_left_out_by_name(file: Path):
    for found in (outline_adapter_set(file), load_adapter_set(file)):
        assert set(found.foreign) == set(FOREIGN)
        assert place(found).complete
        assert len(found.adapters) == 2
    told = inspect_file(file)
    assert set(told.as_json()["unrecognised_keys"]) == set(FOREIGN)
    lines = "\n".join(told.lines())
    assert "left out      3 keys (bundle_emb.my-style.clip_g, bundle_emb" in lines
    assert "1 key (lokr_factor): the factor that a LoKr was made with" in lines
    assert len(card(told)["left_out"]) == 5
    json.dumps(card(told))


def test_every_command_leaves_them_out_and_says_so(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plain, base = tmp_path / "plain.safetensors", tmp_path / "base.safetensors"
    save_file(adapter(), plain)
    save_file({f"blocks.{n}.ffn.0.weight": random(128, 64) for n in range(2)}, base)
    for command in (
        ["delta", "{}", "-o", "{}.delta.safetensors"],
        ["convert", "{}", "-o", "{}.comfyui.safetensors", "--to", "comfyui"],
        ["merge", "--base", str(base), "--adapter", "{}", "-o", "{}.merged.safetensors"],
    ):
        for path in (file, plain):
            assert main([argument.format(path) for argument in command]) == 0
            assert ("1 key (lokr_factor): the factor" in capsys.readouterr().out) == (path == file)
        with_, without = (load_file(command[command.index("-o") + 1].format(path)) for path in (file, plain))
        assert with_.keys() == without.keys()
        assert all(torch.equal(with_[key], without[key]) for key in without)


@pytest.mark.parametrize("key", LOOKS_LIKE_A_PART)
def test_what_may_be_a_part_of_an_adapter_is_refused_by_name(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    save_file(adapter() | {key: LOOKS_LIKE_A_PART[key]}, tmp_path / "a.safetensors")
    assert main(["delta", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("lyco: error: a.safetensors: ")
    assert key.rpartition(".")[0].removesuffix(".lora_A") in error
    assert "belong to no adapter" in error or "missing" in error


def test_a_file_of_nothing_else_is_named_for_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_file({"bundle_emb.x.clip_l": torch.ones(4, 768)}, tmp_path / "a.safetensors")
    assert main(["inspect", str(tmp_path / "a.safetensors")]) == 1
    assert "holds no adapter; found keys like bundle_emb.x.clip_l" in capsys.readouterr().err


WRITERS = {"lora": lora, "loha": loha, "lokr": lokr}


@pytest.mark.parametrize("algorithm", WRITERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_a_module_with_alpha_0_is_off(algorithm: str, dtype: torch.dtype, tmp_path: Path):
    off = WRITERS[algorithm]("lora_unet_blocks_1_ffn_0", 128, 64, random)
    off["lora_unet_blocks_1_ffn_0.alpha"] = torch.tensor(0, dtype=dtype)
    save_file(lokr("lora_unet_blocks_0_ffn_0", 128, 64, random) | off, tmp_path / "a.safetensors")
    found = load_adapter_set(tmp_path / "a.safetensors")
    assert found.idle == {"lora_unet_blocks_1_ffn_0": "off, by an alpha of 0"}
    assert list(found.adapters) == ["blocks.0.ffn.0"]
    told = inspect_file(tmp_path / "a.safetensors")
    assert "left out      1 module (lora_unet_blocks_1_ffn_0): off, by an alpha of 0" in told.lines()
    assert told.as_json()["idle"] == dict(found.idle)
    assert card(told)["left_out"] == ["1 module (lora_unet_blocks_1_ffn_0): off, by an alpha of 0"]


def test_a_full_lokr_is_not_scaled_by_its_alpha_of_0():
    tensors = {"lora_unet_x.lokr_w1": random(2, 2), "lora_unet_x.lokr_w2": random(4, 4)}
    found = parse(tensors | {"lora_unet_x.alpha": torch.tensor(0.0)}, {})
    assert not found.idle
    expected = torch.kron(tensors["lora_unet_x.lokr_w1"], tensors["lora_unet_x.lokr_w2"])
    assert torch.equal(found.adapters["x"].delta_weight(), expected)


def test_an_alpha_of_0_leaves_the_difference_of_a_bias():
    """PEFT's own bias is scaled as its LoRA is."""
    off = lora("lora_unet_x", 8, 8, random) | {"lora_unet_x.alpha": torch.tensor(0.0)}
    found = parse(off | {"lora_unet_x.diff_b": torch.ones(8)}, {})
    assert list(found.adapters) == ["x.bias"]
    assert list(found.idle) == ["lora_unet_x"]
    found = parse(off | {"lora_unet_x.lora_B.bias": torch.ones(8)}, {})
    assert not found.adapters


def test_a_scale_of_0_in_pefts_configuration_is_off_too():
    names = [f"transformer.{x}.lora_{ab}.weight" for x in ("a.0", "b.0") for ab in "AB"]
    tensors = {name: torch.ones((2, 8) if "_A" in name else (8, 2)) for name in names}
    config = {"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"b.0": 0}, "transformer.r": 2}
    found = parse(tensors, {"lora_adapter_metadata": json.dumps(config)})
    assert list(found.adapters) == ["a.0"]
    assert list(found.idle) == ["transformer.b.0"]


def test_resize_keeps_what_is_off_as_it_is(tmp_path: Path):
    off = lora("lora_unet_blocks_1_ffn_0", 128, 64, random) | {"lora_unet_blocks_1_ffn_0.alpha": torch.tensor(0.0)}
    off["lora_unet_blocks_1_ffn_0.diff_b"] = random(128)
    tensors = lora("lora_unet_blocks_0_ffn_0", 128, 64, random) | off | {"lokr_factor": torch.tensor(8)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert main(["resize", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "b.safetensors"), "--rank", "1"]) == 0
    found = load_file(tmp_path / "b.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], off[key]) for key in off)
