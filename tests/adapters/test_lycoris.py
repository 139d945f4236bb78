"""LyCORIS's own functional code, from PyPI, as the second opinion on ΔW."""

import pytest
import torch
from lyco_testing.zoo import CASES, Case

from lyco_core.formats import parse

lycoris = pytest.importorskip("lycoris.functional", reason="lycoris-lora is not installed: pip install lycoris-lora")


@pytest.mark.parametrize("case", [c for c in CASES if c.name.startswith(("loha", "lokr"))], ids=lambda c: c.name)
def test_delta_is_that_of_lycoris(case: Case):
    adapter = case.make()
    if adapter.algorithm == "loha":
        weights = (adapter.w1_b, adapter.w1_a, adapter.w2_b, adapter.w2_a, adapter.t1, adapter.t2)
        theirs = lycoris.loha.diff_weight(*weights, gamma=adapter.scale)
    else:
        names = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
        # What its module's forward calls; its diff_weight takes a Tucker w2_a's rows for the rank.
        theirs = lycoris.lokr.kron_weight(*(getattr(adapter, n) for n in names), scale=adapter.scale)
    ours = adapter.delta_weight()
    assert float((ours - theirs.reshape(ours.shape)).norm() / theirs.norm()) < 2e-6
    assert torch.isfinite(theirs).all()


@pytest.mark.parametrize("on_input", [False, True], ids=["outputs", "inputs"])
@pytest.mark.parametrize("kind", ["Linear", "Conv1d", "Conv2d", "Conv3d"])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_ia3_is_that_of_lycoris(kind: str, on_input: bool, strength: float):
    """Its module's own weight, from the file that it saves."""
    from lycoris.modules.ia3 import IA3Module

    torch.manual_seed(3)
    sizes = (6, 10) if kind == "Linear" else (6, 10, 3)
    module = getattr(torch.nn, kind)(*sizes)
    theirs = IA3Module("x", module, strength, train_on_input=on_input)
    torch.nn.init.normal_(theirs.weight)
    tensors = {f"lycoris_x.{name}": t.detach().clone() for name, t in theirs.state_dict().items()}
    (adapter,) = parse(tensors, {}).adapters.values()
    found = adapter.add_to_(module.weight.detach().clone(), strength)
    expected = theirs.get_merged_weight(multiplier=strength)[0].detach()
    assert float((found - expected).norm() / (expected - module.weight.detach()).norm()) < 1e-6
