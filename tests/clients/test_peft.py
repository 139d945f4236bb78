"""PEFT from PyPI: what it saves, with its adapter_config.json, against the weights that it merges itself."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from lyco_testing.zoo import normal
from safetensors.torch import load_file
from torch import nn

from lyco_core.adapter_reader import load_adapter_set
from lyco_core.formats import emit
from lyco_core.placement import place

peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")


class Net(nn.Module):
    """Names that belong to no family, so that the model's own decide."""

    def __init__(self):
        super().__init__()
        self.stage = nn.ModuleList([nn.Linear(24, 48), nn.Linear(48, 24, bias=False)])
        self.mix = nn.Conv2d(24, 16, 3, padding=1)
        for parameter in self.parameters():
            parameter.data = normal(*parameter.shape) * 0.3


LINEAR = ["stage.0", "stage.1"]
ALL = [*LINEAR, "mix"]
CONFIGS = {
    "lora": lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=ALL),
    "lora-rslora": lambda: peft.LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=ALL),
    "lora-patterns": lambda: peft.LoraConfig(
        r=4, lora_alpha=6, rank_pattern={"stage.1": 2}, alpha_pattern={"mix": 1.5}, target_modules=ALL
    ),
    "lora-bias": lambda: peft.LoraConfig(r=4, lora_alpha=6, lora_bias=True, target_modules=["stage.0", "mix"]),
    "dora": lambda: peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=ALL),
    "loha": lambda: peft.LoHaConfig(r=3, alpha=5, target_modules=ALL),
    "loha-effective": lambda: peft.LoHaConfig(r=3, alpha=5, use_effective_conv2d=True, target_modules=ALL),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=5, target_modules=ALL),
    "lokr-full": lambda: peft.LoKrConfig(r=64, alpha=16, target_modules=ALL),
    "lokr-both": lambda: peft.LoKrConfig(
        r=1, alpha=3, decompose_both=True, decompose_factor=6, use_effective_conv2d=True, target_modules=ALL
    ),
    "oft": lambda: peft.OFTConfig(oft_block_size=6, target_modules=LINEAR),
    "oft-transform": lambda: peft.OFTConfig(oft_block_size=6, use_cayley_neumann=False, target_modules=LINEAR),
    "oft-terms": lambda: peft.OFTConfig(oft_block_size=12, num_cayley_neumann_terms=8, target_modules=LINEAR),
    "oft-three-terms": lambda: peft.OFTConfig(oft_block_size=12, num_cayley_neumann_terms=3, target_modules=LINEAR),
    "oft-shared": lambda: peft.OFTConfig(r=4, oft_block_size=0, block_share=True, target_modules=LINEAR),
    "oft-constrained": lambda: peft.OFTConfig(oft_block_size=6, coft=True, eps=0.4, target_modules=LINEAR),
}


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_what_peft_saves_makes_what_peft_merges(name: str, tmp_path: Path):
    original = Net()
    model = peft.get_peft_model(copy.deepcopy(original), CONFIGS[name]())
    generator = torch.Generator().manual_seed(3)
    for key, parameter in model.named_parameters():
        if "base_layer" not in key and any(part in key for part in ("lora_", "hada_", "lokr_", "oft_")):
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path)
        expected = model.merge_and_unload().state_dict()

    weights = {key: value.clone() for key, value in original.state_dict().items()}
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    found = load_adapter_set(tmp_path / "adapter_model.safetensors")
    placement = place(found, shapes, prefix="").require_complete()
    assert placement.placed
    for piece in placement.placed:
        assert piece.by_name
        piece.part(found.adapters[piece.module_path]).add_to_(weights[piece.key])
    if "lora_B" in "".join(found.keys[found.prefixes["stage.0"]]) and name != "lora-bias":  # PEFT's own goes out so
        file, emitted = load_file(tmp_path / "adapter_model.safetensors"), emit(found)[0]
        assert file.keys() == emitted.keys()
        assert all(torch.equal(emitted[key], tensor) for key, tensor in file.items())
    changed = 0
    for key, value in expected.items():
        assert float((weights[key] - value).norm() / value.norm()) < 1e-5, key
        changed += not torch.equal(value, original.state_dict()[key])
    assert changed >= 2
