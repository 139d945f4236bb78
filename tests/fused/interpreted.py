"""The kernel on the CPU, in Triton's interpreter: `test_kernels.py` runs this file so, in a process of its own."""

import pytest
import torch
from lyco_testing.zoo import CASES, Case, dense_full, normal

from lyco_core.adapters import LoHa, LoKr, LoRA
from lyco_core.adapters.additive import Additive
from lyco_core.fused import Half, combine
from lyco_core.train.trainable.bands import Band
from lyco_core.train.trainable.sums import Base

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def rounded_once(found: torch.Tensor, exact: torch.Tensor) -> bool:
    """Half a unit in the last place, and what float32's own arithmetic is off by."""
    unit = torch.finfo(found.dtype).eps / 2 * exact.abs()
    return bool(((found.double() - exact).abs() <= 1.001 * unit + 4e-6 * exact.abs().max()).all())


def by_kernel(adapter: Additive, weight: torch.Tensor, strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_torch(*_: object) -> None:
        raise AssertionError("not the kernel")

    monkeypatch.setattr(type(adapter), "_add_to_", by_torch)
    adapter.add_to_(weight, strength)


@pytest.mark.parametrize("case", [case for case in CASES if case.dense != dense_full], ids=lambda c: c.name)
@pytest.mark.parametrize("stored", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_form(case: Case, dtype: torch.dtype, stored: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    adapter, rows, strength = case.make().to(dtype=stored), case.shape[0], -0.7
    fused = normal(3 * rows, *case.shape[1:]).to(dtype)
    before, weight = fused.clone(), fused[rows : 2 * rows]
    exact = weight.double() + strength * case.dense(adapter)
    if (
        dtype == torch.float32
        and all(half.wide for half in adapter.halves(weight.device))
        and isinstance(adapter, LoRA)
    ):
        adapter.add_to_(weight, strength)  # one kernel of torch's where all is float32
    else:
        by_kernel(adapter, weight, strength, monkeypatch)
    assert rounded_once(weight, exact)
    assert torch.equal(fused[:rows], before[:rows])
    assert torch.equal(fused[2 * rows :], before[2 * rows :])


LARGER = {
    "lora of rank 70": lambda: LoRA(normal(150, 70), normal(70, 200), alpha=35.0),
    "loha of rank 64": lambda: LoHa(normal(150, 64), normal(64, 200), normal(150, 64), normal(64, 200), alpha=2.0),
    "lokr": lambda: LoKr(w1=normal(10, 5), w2_a=normal(15, 33), w2_b=normal(33, 40), alpha=2.0),
    "lokr, both low": lambda: LoKr(
        w1_a=normal(10, 2), w1_b=normal(2, 5), w2_a=normal(15, 33), w2_b=normal(33, 40), alpha=2.0
    ),
    "lokr, w2 full": lambda: LoKr(w1=normal(3, 8), w2=normal(50, 25)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LARGER)
def test_more_than_one_tile_and_more_than_one_step(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    adapter = LARGER[name]().to(dtype=torch.bfloat16)
    weight = normal(150, 200).to(dtype)
    exact = weight.double() + 0.3 * adapter.delta_weight(torch.float64)
    by_kernel(adapter, weight, 0.3, monkeypatch)
    assert rounded_once(weight, exact)


def test_a_weight_that_has_no_flat_view(monkeypatch: pytest.MonkeyPatch):
    adapter = LoHa(normal(8, 2), normal(2, 36), normal(8, 2), normal(2, 36))
    weight = normal(8, 4, 3, 3).to(memory_format=torch.channels_last)
    expected = weight + adapter.delta_weight().view(8, 4, 3, 3)
    by_kernel(adapter, weight, 1.0, monkeypatch)
    assert torch.allclose(weight, expected, atol=1e-5)


@pytest.mark.parametrize(
    "weight",
    [normal(12, 20).double(), normal(20, 12).t(), normal(12, 20).requires_grad_()],
    ids=["float64", "transposed", "with a gradient"],
)
def test_what_is_left_to_torch(weight: torch.Tensor):
    """Nothing is done: whoever asks does it by torch."""
    half, before = Half(normal(12, 3), normal(3, 20)), weight.detach().clone()
    assert not combine(weight, weight, [half, half])
    assert torch.equal(weight, before)


def test_float32_factors_of_a_high_rank_are_left_to_torch():
    wide = [Half(normal(12, 65), normal(65, 20))] * 2
    narrow = [Half(half.a.bfloat16(), half.b.bfloat16()) for half in wide]
    weight = normal(12, 20)
    assert not combine(weight, weight, wide)
    assert combine(weight, weight, narrow)


def test_factors_that_are_differentiated_are_left_to_torch():
    up, down = normal(12, 3).requires_grad_(), normal(3, 20)
    delta = LoRA(up, down).delta_weight()
    delta.sum().backward()
    assert torch.allclose(up.grad, down.sum(1).expand(12, 3), atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("times", [False, True], ids=["alone", "times"])
def test_without_a_base_and_as_a_product(times: bool, dtype: torch.dtype):
    a, b, other = normal(70, 5).to(dtype), normal(5, 40).to(dtype), normal(70, 40).to(dtype)
    out = torch.empty_like(other)
    assert combine(out, other if times else None, [Half(a, b)], 0.5, times=times)
    assert rounded_once(out, 0.5 * (a.double() @ b.double()) * (other.double() if times else 1))


# In training.


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_a_band_of_a_sum_is_rounded_as_by_torch(dtype: torch.dtype):
    """By the same noise, wherever a band begins. What is added is exact in the dtype, so that it is the same too."""
    weight, added = normal(90, 40).to(dtype), normal(1, 40).to(dtype)
    up, ones = torch.exp2(normal(90, 1).round()).to(dtype), torch.ones(90, 40, dtype=dtype)
    base, factors = Base.of(weight, 7), [up, added, ones[:, :1], ones[:1]]
    found = Band(factors, slice(0, 90), base).total(last=True).clone()
    assert torch.equal(found, base.plus(slice(0, 90), up * added, ones, torch.empty_like(weight)))
    assert torch.equal(Band(factors, slice(64, 90), base).total(last=True), found[64:])
    assert not torch.equal(found, weight + up * added)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_the_gradients_of_the_halves_are_made_of(dtype: torch.dtype):
    factors = [normal(*shape).to(dtype) for shape in ((90, 5), (5, 40)) * 2]
    factors[2], of_delta = factors[2] + 1, normal(90, 40).to(dtype)
    one, other = (up[8:].double() @ down.double() for up, down in (factors[:2], factors[2:]))
    of_first, of_second = Band(factors, slice(8, 90), None).times(of_delta[8:])
    assert rounded_once(of_first, of_delta[8:].double() * other)
    assert rounded_once(of_second, of_delta[8:].double() * one)
