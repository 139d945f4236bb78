"""LyCORIS 4 from PyPI: what its modules do to an input, against the weight that we make of what they save."""

import pytest
import torch
from lyco_testing.zoo import normal
from torch import nn

from lyco_core.formats import parse

pytest.importorskip("lycoris.modules", reason="lycoris-lora is not installed: pip install lycoris-lora")

from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule

DORA = {"weight_decompose": True, "lora_dim": 3, "alpha": 2.0}
CASES = {
    **{
        f"dora-{name}-{kind}-{'out' if on_out else 'in'}": (module, kind, DORA | {"wd_on_out": on_out} | options)
        for on_out in (True, False)
        for kind in ("linear", "conv")
        for name, module, options in (
            ("lora", LoConModule, {}),
            ("lora-tucker", LoConModule, {"use_tucker": True}),
            ("loha", LohaModule, {}),
            ("loha-tucker", LohaModule, {"use_tucker": True}),
            ("lokr", LokrModule, {"factor": 4}),
            ("lokr-full", LokrModule, {"factor": 2, "lora_dim": 1000}),
            ("lokr-both", LokrModule, {"factor": 6, "decompose_both": True, "lora_dim": 1}),
            ("lokr-tucker", LokrModule, {"factor": 2, "use_tucker": True, "lora_dim": 2}),
        )
    },
    **{
        f"{name}-{kind}": (module, kind, options)
        for kind in ("linear", "conv")
        for name, module, options in (
            ("lora", LoConModule, {"lora_dim": 3, "alpha": 2.0}),
            ("lora-rs", LoConModule, {"lora_dim": 3, "alpha": 2.0, "rs_lora": True}),
            ("loha", LohaModule, {"lora_dim": 3, "alpha": 2.0}),
            ("lokr", LokrModule, {"lora_dim": 2, "alpha": 1.0, "factor": 4}),
            ("lokr-full", LokrModule, {"lora_dim": 1000, "alpha": 1.0, "factor": 2}),
            ("glora", GLoRAModule, {"lora_dim": 3, "alpha": 2.0}),
            ("ia3-out", IA3Module, {}),
            ("ia3-in", IA3Module, {"train_on_input": True}),
            ("oft", DiagOFTModule, {"lora_dim": 4}),
            ("oft-rescaled", DiagOFTModule, {"lora_dim": 4, "rescaled": True}),
            ("oft-constrained", DiagOFTModule, {"lora_dim": 4, "constraint": 0.01}),
            ("boft", ButterflyOFTModule, {"lora_dim": 6}),
            ("boft-rescaled", ButterflyOFTModule, {"lora_dim": 6, "rescaled": True, "constraint": 0.02}),
        )
    },
}
INPUT = {"linear": (5, 24), "conv": (2, 24, 7, 7)}


def base(kind: str) -> nn.Module:
    module = nn.Linear(24, 48) if kind == "linear" else nn.Conv2d(24, 48, 3, padding=1)
    for parameter in module.parameters():
        parameter.data = normal(*parameter.shape) * 0.3
    return module


def randomised(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for name, parameter in module.named_parameters():
        step = torch.randn(parameter.shape, generator=generator) * (0.1 if "oft" in name else 0.3)
        parameter.data = parameter.data + step if name in ("dora_scale", "rescale") else step


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_changed_weight_does_what_the_module_does(name: str):
    cls, kind, options = CASES[name]
    original = base(kind)
    x = normal(*INPUT[kind])
    module = cls("m", original, 1.0, **options)
    module.eval()
    randomised(module)
    state = module.custom_state_dict() if hasattr(module, "custom_state_dict") else None
    state = state or module.state_dict()
    tensors = {f"lycoris_m.{key}": value.detach().clone() for key, value in state.items()}
    adapter = parse(tensors, {}).adapters["m"]
    changed = base(kind)
    adapter.add_to_(changed.weight.data)
    module.apply_to()
    expected = original(x)
    assert float((changed(x) - expected).norm() / expected.norm()) < 1e-5
    untouched = base(kind)(x)
    assert float((expected - untouched).norm() / untouched.norm()) > 1e-2


@pytest.mark.parametrize("kind", ["linear", "conv"])
@torch.no_grad()
def test_a_full_difference_with_its_bias(kind: str):
    original, x = base(kind), normal(*INPUT[kind])
    module = FullModule("m", original, 1.0)
    module.apply_to()
    for parameter in (module.weight, module.bias):
        parameter.data += normal(*parameter.shape) * 0.1
    found = parse({f"lycoris_m.{k}": v.clone() for k, v in module.custom_state_dict().items()}, {}).adapters
    changed = base(kind)
    found["m"].add_to_(changed.weight.data)
    found["m.bias"].add_to_(changed.bias.data)
    expected = module(x) if kind == "linear" else original.forward(x)
    assert float((changed(x) - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("norm", [nn.LayerNorm(24), nn.GroupNorm(4, 24)], ids=["layer", "group"])
@torch.no_grad()
def test_a_norm(norm: nn.Module):
    x = normal(5, 24)
    module = NormModule("m", norm, 1.0)
    for parameter in (module.w_norm, module.b_norm):
        parameter.data = normal(*parameter.shape) * 0.2
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    found = parse({f"lycoris_m.{k}": v.clone() for k, v in module.state_dict().items()}, {}).adapters
    module.apply_to()
    expected = norm(x)
    changed = type(norm)(24) if isinstance(norm, nn.LayerNorm) else nn.GroupNorm(4, 24)
    changed.load_state_dict(before)
    found["m"].add_to_(changed.weight.data)
    found["m.bias"].add_to_(changed.bias.data)
    assert float((changed(x) - expected).norm() / expected.norm()) < 1e-5
