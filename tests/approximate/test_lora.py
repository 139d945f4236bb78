"""The best LoRAs, against the singular values of ΔW itself."""

import pytest
import torch
from lyco_testing.relative import relative
from lyco_testing.zoo import normal

from lyco_core.adapters import LoHa, LoKr, LoRA, to_loha
from lyco_core.approximate.lora import best_lora
from lyco_core.approximate.options import Limits
from lyco_core.errors import AdapterError

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
    found = best_lora(adapter, Limits(rank=rank))
    singular = torch.linalg.svdvals(delta.double())
    best = float(singular[rank:].square().sum().sqrt() / singular.norm())
    assert found.rank <= rank
    assert relative(found.delta_weight(), delta) <= best * 1.01 + 1e-5


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("error", [0.5, 0.1, 0.001])
def test_the_smallest_lora_of_an_error(name: str, error: float):
    adapter = ADAPTERS[name]()
    delta = adapter.delta_weight()
    found = best_lora(adapter, Limits(max_error=error))
    assert relative(found.delta_weight(), delta) <= error
    if found.rank > 1:
        singular = torch.linalg.svdvals(delta.double())
        assert float(singular[found.rank - 1 :].norm() / singular.norm()) > error * 0.99


@pytest.mark.parametrize("error", [1e-3, 1e-4, 2e-5])
@pytest.mark.parametrize("kind", ["lora", "loha"])
def test_a_small_error_is_kept_on_a_long_spectrum(kind: str, error: float):
    """The tail is summed by itself: taken from the whole, rounding drowns it."""
    values = torch.logspace(0, -6, 100)
    up, down = (torch.linalg.qr(normal(200, 100) + n)[0] for n in (0.0, 0.1))
    lora = LoRA(up * values, down.t().contiguous())
    adapter = lora if kind == "lora" else to_loha(lora)
    assert adapter is not None
    found = best_lora(adapter, Limits(max_error=error))
    needed = next(k for k in range(1, 101) if float(values[k:].norm() / values.norm()) <= error)
    assert relative(found.delta_weight(), adapter.delta_weight()) <= error * 1.01
    assert needed <= found.rank <= needed + 2


@pytest.mark.parametrize(
    "adapter",
    [
        LoRA(torch.full((8, 2), 1e30), torch.full((2, 6), 1e30)),
        LoKr(w1=torch.full((2, 2), 1e30), w2_a=torch.full((4, 2), 1e30), w2_b=torch.full((2, 3), 1e30)),
    ],
)
def test_products_beyond_float32_are_refused(adapter):
    with pytest.raises(AdapterError, match="beyond float32's range"):
        best_lora(adapter, Limits(rank=1))


def test_nothing_is_a_lora_of_rank_one():
    found = best_lora(LoRA(torch.zeros(6, 3), torch.zeros(3, 5)), Limits(max_error=0.1))
    assert found.rank == 1
    assert not found.delta_weight().any()
