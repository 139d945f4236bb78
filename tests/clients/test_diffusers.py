"""diffusers and PEFT from PyPI load what `lyco convert --to diffusers --as lora` writes."""

import warnings
from pathlib import Path

import pytest
import torch
from lyco_testing.diffusers_models import MODELS, musubi_targets, tiny
from lyco_testing.tables import musubi_file, random
from safetensors.torch import load_file, save_file

from lyco_core.adapter_reader import load_adapter_set, read_adapter_set
from lyco_core.approximate.extract import extract_file
from lyco_core.approximate.options import ExtractOptions, Limits
from lyco_core.conversion import ConvertOptions, convert_file
from lyco_core.delta_weights import write_delta
from lyco_core.errors import LycoError
from lyco_core.placement import place
from lyco_core.selection import Selection

pytest.importorskip("peft", reason="peft is not installed: pip install peft")


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora"])
def test_the_weights_change_as_they_should(architecture: str, algorithm: str, tmp_path: Path):
    model = tiny(architecture)
    modules = musubi_targets(architecture, model)
    assert len(modules) >= 14
    tensors = musubi_file(modules, algorithm, random)
    first = f"lora_unet_{next(iter(modules)).replace('.', '_')}.alpha"
    save_file(tensors | {first: torch.tensor(3.0)}, tmp_path / "musubi.safetensors")
    write_delta(tmp_path / "musubi.safetensors", tmp_path / "delta", layout="diffusers", architecture=architecture)
    options = ConvertOptions("diffusers", as_lora=True)
    convert_file(tmp_path / "musubi.safetensors", tmp_path / "lora.safetensors", options, architecture=architecture)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        model.load_lora_adapter(str(tmp_path), weight_name="lora.safetensors")
    expected = load_file(tmp_path / "delta")
    loaded = {n: m for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    assert {f"{name}.weight" for name in loaded} == set(expected)
    for name, module in loaded.items():
        delta = module.get_delta_weight("default_0").detach()
        wanted = expected[f"{name}.weight"]
        assert float((delta - wanted).norm() / wanted.norm()) < 5e-6


@pytest.mark.parametrize("architecture", ["wan", "flux1"])
def test_what_is_extracted_from_its_checkpoints_changes_the_weights_as_it_should(architecture: str, tmp_path: Path):
    """Linear modules and a convolution of the model under diffusers' own names, and nothing else."""
    base, tuned = tiny(architecture), tiny(architecture)
    torch.manual_seed(1)
    changed: dict[str, torch.Tensor] = {}
    for name, module in tuned.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv3d):
            changed[name] = torch.randn_like(module.weight) / 50
            module.weight.data += changed[name]
    for name, model in (("base", base), ("tuned", tuned)):
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    out = tmp_path / "lora.safetensors"
    options = ExtractOptions("lora", Limits(rank=1000))
    report = extract_file(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", out, options)
    assert len(report.modules) == len(changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        base.load_lora_adapter(str(tmp_path), weight_name="lora.safetensors")
    loaded = {n: m.get_delta_weight("default_0").detach() for n, m in base.named_modules() if hasattr(m, "lora_A")}
    assert loaded.keys() == changed.keys()
    for name, delta in loaded.items():
        assert float((delta - changed[name]).norm() / changed[name].norm()) < 1e-4, name
    assert read_adapter_set(out).adapters.keys() == changed.keys()


def test_an_extracted_norm_that_no_loader_would_find_is_named(tmp_path: Path):
    """By diffusers' names; a bias of a linear module is found."""
    tensors = tiny("wan").state_dict()
    save_file(tensors, tmp_path / "base.safetensors")
    for name in ("blocks.0.ffn.net.2.bias", "blocks.0.norm2.weight", "blocks.0.attn1.to_q.weight"):
        tensors[name] = tensors[name] + 0.1
    save_file(tensors, tmp_path / "tuned.safetensors")
    out = tmp_path / "lora.safetensors"
    files = (tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", out)
    with pytest.raises(LycoError, match=r"1 of the 3 tensors that differ cannot be loaded .*\(blocks.0.norm2\); leave"):
        extract_file(*files, ExtractOptions("lora", Limits(rank=1)))
    extract_file(*files, ExtractOptions("lora", Limits(rank=1), selection=Selection.of(exclude=["blocks.0.norm2"])))
    assert "transformer.blocks.0.ffn.net.2.diff_b" in load_file(out)
    assert place(load_adapter_set(out)).complete
