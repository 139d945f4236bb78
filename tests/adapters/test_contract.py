"""Every additive algorithm in every form keeps the contract of `adapters/base.py` and `adapters/additive.py`."""

import math
from typing import Any

import pytest
import torch
from lyco_testing.relative import relative
from lyco_testing.zoo import CASES, Case, normal

from lyco_core.adapters import Adapter, LoRA, base, lokr, lora_rank, to_loha, to_lora
from lyco_core.errors import AdapterError
from lyco_core.scratch import scratch

every_form = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
TOLERANCE = 2e-6


@every_form
def test_shape_and_delta(case: Case):
    adapter = case.make()
    assert adapter.shape == case.shape
    delta = adapter.delta_weight()
    assert delta.dtype == torch.float32
    assert tuple(delta.shape) == case.shape
    assert relative(delta, case.dense(adapter)) < TOLERANCE


@every_form
@pytest.mark.parametrize("strength", [1.0, -0.7, 0.0])
def test_add_to_changes_in_place(case: Case, strength: float):
    adapter = case.make()
    weight = normal(*case.shape)
    before = weight.clone()
    assert adapter.add_to_(weight, strength) is weight
    expected = before.double() + strength * case.dense(adapter)
    assert relative(weight, expected) < TOLERANCE
    assert strength != 0 or torch.equal(weight, before)


@every_form
@pytest.mark.parametrize("lines", [1, 3, 1000])
def test_bands_of_any_size_agree(case: Case, lines: int, monkeypatch: pytest.MonkeyPatch):
    adapter = case.make()
    monkeypatch.setattr(base, "CACHE_BAND_BYTES", 4 * lines * adapter.flat_shape[1])
    for dtype in (torch.float32, torch.bfloat16):
        weight = normal(*case.shape).to(dtype)
        expected = weight.double() + 0.5 * case.dense(adapter)
        adapter.add_to_(weight, 0.5)
        assert relative(weight, expected) < (TOLERANCE if dtype == torch.float32 else 4e-3)


@every_form
@pytest.mark.parametrize("height", [1, 3, 7, 1000])
def test_bands_from_any_row_on(case: Case, height: int):
    """Also where `rows` cannot cut: across the borders of a LoKr's blocks."""
    adapter = case.make()
    weight = normal(*case.shape)
    expected = weight.double() - 0.6 * case.dense(adapter)
    for start in range(0, case.shape[0], height):
        adapter.add_band_(weight[start : start + height], start, -0.6)
    assert relative(weight, expected) < TOLERANCE


@every_form
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weight_is_rounded_once(case: Case, dtype: torch.dtype):
    adapter = case.make()
    weight = normal(*case.shape).to(dtype)
    exact = weight.double() + 0.3 * case.dense(adapter)
    adapter.add_to_(weight, 0.3)
    nearest = exact.to(dtype)
    unit = torch.finfo(dtype).eps * exact.abs()
    # float32 arithmetic may fall on the other side of a tie, never further.
    assert ((weight.double() - exact).abs() <= 0.5 * unit * 1.01 + 1e-6).all()
    assert float((weight != nearest).float().mean()) < 0.01


@every_form
def test_float64_weight_is_computed_in_float64(case: Case):
    adapter = case.make()
    weight = torch.zeros(case.shape, dtype=torch.float64)
    assert relative(adapter.add_to_(weight), case.dense(adapter)) < 1e-14


@every_form
def test_add_to_rows_of_a_fused_weight(case: Case):
    adapter = case.make()
    height = case.shape[0]
    fused = normal(3 * height, *case.shape[1:])
    before = fused.clone()
    adapter.add_to_(fused[height : 2 * height])
    assert torch.equal(fused[:height], before[:height])
    assert torch.equal(fused[2 * height :], before[2 * height :])
    assert relative(fused[height : 2 * height] - before[height : 2 * height], case.dense(adapter)) < 1e-5


def test_channels_last_weights():
    """No flat view of them exists; ComfyUI has them with --force-channels-last."""
    adapter = LoRA(normal(8, 2, 1, 1), normal(2, 4, 3, 3), alpha=1.0)
    weight = normal(8, 4, 3, 3).to(memory_format=torch.channels_last)
    expected = weight + adapter.delta_weight()
    adapter.add_to_(weight)
    assert torch.equal(weight, expected)


def test_leading_ones_do_not_matter():
    """Wan's modulation is (1, 6, width); a trainer's LoRA of it (6, width)."""
    adapter = LoRA(normal(6, 2), normal(2, 16))
    weight = torch.zeros(1, 6, 16)
    assert torch.allclose(adapter.add_to_(weight)[0], adapter.delta_weight(), atol=1e-6)


@every_form
def test_other_shape_is_refused_and_nothing_changes(case: Case):
    weight = torch.zeros(case.shape[0] + 1, *case.shape[1:])
    with pytest.raises(AdapterError, match="changes a weight of"):
        case.make().add_to_(weight)
    assert not weight.any()


@every_form
def test_apply_is_the_product_with_delta(case: Case):
    adapter = case.make()
    x = normal(2, 5, adapter.flat_shape[1])
    expected = x.double() @ case.dense(adapter).flatten(1).t()
    assert relative(adapter.apply(x), expected) < 5e-6


@every_form
@pytest.mark.parametrize("place", ["whole", "rows", "channels first", "wider"])
def test_it_is_added_to_an_output(case: Case, place: str):
    """Also to some of the outputs, to those of a convolution, and in another dtype than the input's."""
    adapter, (out, into) = case.make(), case.make().flat_shape
    x = normal(2, 5, into)
    output = {
        "whole": lambda: normal(2, 5, out),
        "rows": lambda: normal(2, 5, out + 3)[..., 2 : out + 2],
        "channels first": lambda: normal(2, out, 5).movedim(1, -1),
        "wider": lambda: normal(2, 5, out).double(),
    }[place]()
    expected = output.double() + 0.3 * (x.double() @ case.dense(adapter).flatten(1).t())
    assert adapter.apply_to_(x, output, 0.3) is output
    assert relative(output, expected) < 5e-6


@every_form
def test_rows_are_exact_or_refused(case: Case):
    adapter = case.make()
    delta = adapter.delta_weight()
    answered = 0
    for start in range(case.shape[0]):
        for stop in range(start + 1, case.shape[0] + 1):
            band = adapter.rows(start, stop)
            if band is not None:
                answered += 1
                assert band.shape == (stop - start, *case.shape[1:])
                assert relative(band.delta_weight(), delta[start:stop]) < TOLERANCE
    assert adapter.rows(0, case.shape[0]) is not None
    if adapter.algorithm == "lokr":
        out_k = case.shape[0] // adapter.factor1(torch.float32, delta.device).shape[0]
        assert adapter.rows(1, out_k + 1) is None
        assert adapter.rows(out_k, 2 * out_k) is not None
        assert adapter.rows(1, out_k) is not None
    else:
        assert answered == case.shape[0] * (case.shape[0] + 1) // 2


@every_form
def test_to_lora_is_exact(case: Case):
    adapter = case.make()
    lora = to_lora(adapter)
    assert isinstance(lora, LoRA)
    assert lora.shape == case.shape
    assert lora.rank == lora_rank(adapter)
    assert relative(lora.delta_weight(), case.dense(adapter)) < TOLERANCE


@every_form
def test_to_lora_of_bfloat16_rounds_nothing(case: Case):
    """Products of two bfloat16 numbers fit float32; W1 and W2 both low-rank multiply two only too."""
    adapter = case.make().to(dtype=torch.bfloat16)
    if adapter.tensors.keys() & {"mid", "t1", "t2"}:
        pytest.skip("a Tucker core is folded by sums, which round")
    lora = to_lora(adapter)
    up, down = (t.double() for t in lora.factors(torch.float32, torch.device("cpu")))
    exact = case.dense(adapter).flatten(1)
    assert relative(up @ down * lora.scale, exact) < 1e-14


@every_form
def test_to_loha_only_copies_numbers(case: Case):
    adapter = case.make().to(dtype=torch.bfloat16)
    loha = to_loha(adapter)
    if loha is None:
        named = adapter.tensors.keys() & {"mid", "t2", "diff"}
        assert named, "to_loha gives None: name here the tensor for which no LoHa has this adapter's own numbers"
        return
    assert loha.dtype == torch.bfloat16
    own = {float(x) for t in adapter.tensors.values() for x in t.flatten()} | {0.0, 1.0}
    assert {float(x) for t in loha.tensors.values() for x in t.flatten()} <= own
    assert relative(loha.delta_weight(), case.dense(adapter).reshape(loha.shape)) < TOLERANCE


@every_form
def test_outline_has_the_shape_without_the_numbers(case: Case):
    adapter = case.make()
    outline = adapter.to("meta")
    assert outline.shape == case.shape
    assert outline.rank == adapter.rank
    assert all(t.is_meta for t in outline.tensors.values())


@every_form
def test_tensors_by_name_rebuild_it(case: Case):
    adapter = case.make()
    again: Adapter = type(adapter)(**dict.fromkeys(adapter.tensor_names) | adapter.tensors, alpha=adapter.alpha)
    assert torch.equal(again.delta_weight(), adapter.delta_weight())


def test_extra_memory_is_a_fraction_of_the_weight(monkeypatch: pytest.MonkeyPatch):
    """add_to_ never holds ΔW: the largest tensor that LoKr makes is one band."""
    made: list[int] = []
    original = scratch

    def spy(use: str, shape: tuple[int, ...], *rest: Any) -> torch.Tensor:
        made.append(math.prod(shape))
        return original(use, shape, *rest)

    monkeypatch.setattr(lokr, "scratch", spy)
    adapter = lokr.LoKr(w1=normal(4, 4), w2_a=normal(512, 4), w2_b=normal(4, 512), alpha=1.0)
    adapter.add_to_(torch.zeros(2048, 2048))
    assert made
    assert max(made) * 4 <= base.CACHE_BAND_BYTES
