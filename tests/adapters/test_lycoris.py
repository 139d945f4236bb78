"""LyCORIS's own functional code, from PyPI, as the second opinion on ΔW."""

import pytest
import torch
from lyco_testing.zoo import CASES, Case

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
