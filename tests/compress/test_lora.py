"""The best LoRAs, against the singular values of ΔW itself."""

import pytest
import torch
from lyco_testing.zoo import normal

from lyco_core.adapters import LoHa, LoKr, LoRA
from lyco_core.compress.lora import best_lora


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


ADAPTERS = {
    "lokr": lambda: LoKr(w1=normal(6, 5), w2_a=normal(7, 3), w2_b=normal(3, 8), alpha=2.0),
    "lokr-negative": lambda: LoKr(w1=normal(6, 5), w2_a=normal(7, 3), w2_b=normal(3, 8), alpha=-2.0),
    "lokr-full": lambda: LoKr(w1=normal(6, 5), w2=normal(7, 8)),
    "lora": lambda: LoRA(normal(42, 9), normal(9, 40), alpha=4.0),
    "loha": lambda: LoHa(normal(42, 3), normal(3, 40), normal(42, 3) + 1, normal(3, 40)),
}


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("rank", [1, 4, 30])
def test_the_best_lora_of_a_rank(name: str, rank: int):
    adapter = ADAPTERS[name]()
    delta = adapter.delta_weight()
    found = best_lora(adapter, rank=rank)
    singular = torch.linalg.svdvals(delta.double())
    best = float(singular[rank:].square().sum().sqrt() / singular.norm())
    assert found.rank <= rank
    assert relative(found.delta_weight(), delta) <= best * 1.01 + 1e-5


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("error", [0.5, 0.1, 0.001])
def test_the_smallest_lora_of_an_error(name: str, error: float):
    adapter = ADAPTERS[name]()
    delta = adapter.delta_weight()
    found = best_lora(adapter, max_error=error)
    assert relative(found.delta_weight(), delta) <= error
    if found.rank > 1:
        singular = torch.linalg.svdvals(delta.double())
        assert float(singular[found.rank - 1 :].norm() / singular.norm()) > error * 0.99
