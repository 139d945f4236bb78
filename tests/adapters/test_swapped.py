"""An adapter of a weight with its halves in the other order is exact, whatever the algorithm; a file can hold most."""

import pytest
import torch
from lyco_testing.relative import relative
from lyco_testing.zoo import CASES, Case, normal
from lyco_testing.zoo_on_base import ON_BASE, OnBaseCase

from lyco_core.adapters import BOFT, OFT, Adapter, BoRA, DoRA, LoKr, SplitOFT, Swapped, with_halves_swapped


def swapped(tensor: torch.Tensor) -> torch.Tensor:
    half = len(tensor) // 2
    return torch.cat([tensor[half:], tensor[:half]])


@pytest.mark.parametrize("case", [c for c in (*CASES, *ON_BASE) if c.shape[0] % 2 == 0], ids=lambda c: c.name)
def test_the_change_is_that_of_the_other_order(case: Case | OnBaseCase):
    adapter, weight = case.make(), normal(*case.shape).double()
    expected = swapped(adapter.add_to_(swapped(weight), 0.7)) - weight
    assert relative(with_halves_swapped(adapter).add_to_(weight.clone(), 0.7) - weight, expected) < 1e-6
    outline = with_halves_swapped(adapter.with_tensors({n: t.to("meta") for n, t in adapter.tensors.items()}))
    assert outline.shape == adapter.shape


@pytest.mark.parametrize("case", [c for c in (*CASES, *ON_BASE) if c.shape[0] % 2 == 0], ids=lambda c: c.name)
def test_it_stays_of_its_kind_where_its_factors_have_the_rows(case: Case | OnBaseCase):
    adapter = case.make()
    found = with_halves_swapped(adapter)
    assert (
        kinds(found) == kinds(adapter)
        or isinstance(adapter, Swapped | OFT | BOFT | BoRA | SplitOFT)
        or odd_blocks(adapter)
    )
    back = with_halves_swapped(found)
    if kinds(found) == kinds(adapter) and not isinstance(found, Swapped):
        assert all(torch.equal(back.tensors[name], t) for name, t in adapter.tensors.items())


def kinds(adapter: Adapter) -> tuple[type, ...]:
    return (type(adapter), *kinds(adapter.inner)) if isinstance(adapter, DoRA) else (type(adapter),)


def odd_blocks(adapter: Adapter) -> bool:
    inner = adapter.inner if isinstance(adapter, DoRA) else adapter
    return isinstance(inner, LoKr) and inner.shape1[0] % 2 == 1


@pytest.mark.parametrize(("blocks", "alpha", "kind"), [(4, None, OFT), (3, None, Swapped), (4, 0.01, Swapped)])
def test_blocks_that_one_norm_bounds_or_that_a_half_cuts_are_turned_in_their_own_order(blocks, alpha, kind):
    adapter = OFT(normal(blocks, 4, 4), normal(blocks * 4, 1) + 2, alpha=alpha)
    found, weight = with_halves_swapped(adapter), normal(blocks * 4, 5).double()
    assert type(found) is kind
    assert relative(found.add_to_(weight.clone()), swapped(adapter.add_to_(swapped(weight)))) < 1e-12
