"""Every algorithm that is computed from the weight keeps the contract of `adapters/on_base.py`."""

import pytest
import torch
from lyco_testing.relative import relative
from lyco_testing.zoo import normal
from lyco_testing.zoo_on_base import ON_BASE, OnBaseCase

from lyco_core.adapters import (
    BOFT,
    IA3,
    OFT,
    BoRA,
    DoRA,
    Full,
    LoKr,
    LoRA,
    OFTv2,
    SplitOFT,
    Swapped,
    lora_rank,
    to_loha,
    to_lora,
)
from lyco_core.approximate.lora import best_lora
from lyco_core.approximate.options import Limits
from lyco_core.errors import AdapterError

every_form = pytest.mark.parametrize("case", ON_BASE, ids=lambda c: c.name)


@every_form
@pytest.mark.parametrize("strength", [1.0, 0.4, -0.7, 0.0])
def test_the_change_is_what_the_papers_write(case: OnBaseCase, strength: float):
    adapter, weight = case.make(), normal(*case.shape)
    base = weight.double()
    expected = strength * (case.changed(adapter, base) - base)
    assert adapter.add_to_(weight, strength) is weight
    if strength:
        assert relative(weight - base, expected) < 2e-6
    else:
        assert torch.equal(weight, base.float())


@every_form
def test_float64_weights_are_computed_in_float64(case: OnBaseCase):
    adapter, weight = case.make(), normal(*case.shape).double()
    expected = case.changed(adapter, weight.clone())
    assert relative(adapter.add_to_(weight), expected) < (1e-6 if isinstance(adapter, DoRA) else 1e-12)


@every_form
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_rounded_once(case: OnBaseCase, dtype: torch.dtype):
    adapter, weight = case.make(), normal(*case.shape).to(dtype)
    exact = weight.double() + 0.3 * (case.changed(adapter, weight.double()) - weight.double())
    adapter.add_to_(weight, 0.3)
    assert ((weight.double() - exact).abs() <= 0.5 * torch.finfo(dtype).eps * exact.abs() * 1.01 + 1e-5).all()


@every_form
def test_rows_are_exact_or_refused(case: OnBaseCase):
    adapter, weight = case.make(), normal(*case.shape)
    expected = adapter.add_to_(weight.clone())
    cut = [(a, b) for a in range(case.shape[0]) for b in range(a + 1, case.shape[0] + 1)]
    for start, stop in cut:
        band = adapter.rows(start, stop)
        if band is not None:
            assert relative(band.add_to_(weight[start:stop].clone()), expected[start:stop]) < 2e-6
    by_rows = not isinstance(adapter, OFT | BOFT | BoRA | SplitOFT | Swapped) and not (
        isinstance(adapter, DoRA) and adapter.axis == 1
    )
    assert (adapter.rows(0, case.shape[0] // 2) is not None) == by_rows
    assert adapter.rows(0, case.shape[0]) is not None


@every_form
def test_its_tensors_rebuild_it(case: OnBaseCase):
    adapter, weight = case.make(), normal(*case.shape)
    outline = adapter.to("meta")
    assert outline.shape == adapter.shape
    assert all(t.is_meta for t in outline.tensors.values())
    again = outline.with_tensors(adapter.tensors)
    assert torch.equal(again.add_to_(weight.clone()), adapter.add_to_(weight.clone()))


@every_form
def test_nothing_is_claimed_without_the_weight(case: OnBaseCase):
    adapter = case.make()
    assert to_lora(adapter) is None
    assert to_loha(adapter) is None
    assert not {"delta_weight", "apply", "edges"} & set(dir(adapter))
    with pytest.raises(AdapterError, match="by that weight's own numbers, so there is no LoRA without it"):
        lora_rank(adapter)
    with pytest.raises(AdapterError, match="by that weight's own numbers, so there is no delta weight without it"):
        best_lora(adapter, Limits(rank=1))


@every_form
def test_another_shape_is_refused_and_nothing_changes(case: OnBaseCase):
    wrong = torch.zeros(case.shape[0] + 1, case.shape[1] + 1, *case.shape[2:])
    with pytest.raises(AdapterError, match="changes a weight of"):
        case.make().add_to_(wrong)
    assert not wrong.any()


def test_a_row_of_zeros_stays_finite():
    adapter = DoRA.of(LoRA(torch.zeros(4, 2), torch.zeros(2, 6)), torch.ones(4, 1))
    assert torch.isfinite(adapter.add_to_(torch.zeros(4, 6))).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DoRA.of(LoRA(normal(4, 2), normal(2, 6)), normal(5, 1)),
            r"magnitude has shape \[1, 5\], expected 4 numbers",
        ),
        (lambda: DoRA.of(LoRA(normal(4, 2), normal(2, 6)), normal(6), on_output=True), "expected 4 numbers"),
        (lambda: IA3(normal(3, 4), on_input=True), "expected one number a channel"),
        (lambda: OFT(normal(3, 4, 5)), "expected square blocks"),
        (lambda: OFT(normal(3, 4, 4), normal(5, 1)), "expected 12 rows"),
        (lambda: BOFT(normal(3, 4, 3, 3)), "need an even size"),
        (lambda: OFTv2(normal(3, 5)), r"has shape \[3, 5\], expected b\(b - 1\)/2 numbers a block"),
        (lambda: OFTv2(normal(3, 6), normal(4, 1)), "initial_norm missing"),
        (lambda: OFTv2(normal(3, 6), normal(4, 1), normal(5, 1)), "4 magnitudes and 5 norms"),
        (
            lambda: OFTv2(normal(3, 6), inner=DoRA.of(LoRA(normal(4, 2), normal(2, 6)), normal(4, 1))),
            "of blocks of 4, beside factors of 6 inputs",
        ),
        (
            lambda: BoRA(LoRA(normal(4, 2), normal(2, 6)), normal(4, 1), normal(5)),
            "4 of rows and 5 of columns, expected 4 and 6",
        ),
        (lambda: BOFT(normal(4, 3, 4, 4)), "a multiple of 32 rows"),
    ],
)
def test_refused(make, message: str):
    with pytest.raises(AdapterError, match=message):
        make()


def test_a_difference_of_a_bias():
    bias = normal(7)
    adapter = Full(normal(7))
    expected = bias + 0.5 * adapter.diff
    assert torch.allclose(adapter.add_to_(bias, 0.5), expected)
    assert adapter.rows(2, 5).shape == (3,)
    assert to_lora(adapter) is None


def test_the_magnitudes_shape_tells_the_axis():
    square = LoKr(w1=normal(2, 2), w2=normal(3, 3))
    assert DoRA.of(square, normal(6, 1)).axis == 0
    assert DoRA.of(square, normal(1, 6)).axis == 1
    assert DoRA.of(square, normal(6), on_output=True).axis == 0
    assert DoRA.of(square, normal(1, 6), on_output=True).axis == 0  # PEFT's convolutions
