"""One measurement: the relative error of a change, of a module and of all, as convert, extract and resize tell it."""

import pytest
import torch
from lyco_testing.zoo import CASES, Case, normal
from lyco_testing.zoo_on_base import ON_BASE

from lyco_core.adapters import DoRA, Full, LoRA, bare
from lyco_core.approximate.options import Limits
from lyco_core.approximate.report import Measured, Report
from lyco_core.errors import AdapterError, LycoError


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_error_is_that_of_the_dense_change(case: Case):
    exact = case.make()
    delta = case.dense(exact)
    made = Full((delta + 0.1 * normal(*case.shape)).float())
    right = float((made.diff.double() - delta).norm() / delta.norm())
    for of in (exact, delta.float()):
        found = Measured.of("x", made, of)
        assert (found.name, found.algorithm, found.rank) == ("x", "full", None)
        assert found.error == pytest.approx(right, rel=1e-4)
        assert found.norm == pytest.approx(float(delta.norm()), rel=1e-5)


def test_a_dora_is_measured_by_what_it_sits_on():
    lora, near = LoRA(normal(12, 4), normal(4, 9), alpha=2.0), LoRA(normal(12, 4), 1.1 * normal(4, 9), alpha=2.0)
    found = Measured.of("x", DoRA.of(near, normal(12, 1)), DoRA.of(lora, normal(12, 1) + 5))
    assert found == Measured.of("x", near, lora)
    assert found.error == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("case", [c for c in ON_BASE if not c.name.startswith("dora")], ids=lambda c: c.name)
def test_what_has_no_change_without_the_weight_is_refused(case):
    adapter = case.make()
    with pytest.raises(AdapterError, match=f"{adapter.title} changes a weight .* no delta weight without it"):
        Measured.of("x", bare(adapter), adapter)


def test_all_together_weigh_by_their_norms():
    report = Report((Measured("a", "lora", 4, 0.3, 2.0), Measured("b", "lora", 2, 0.1, 10.0)))
    assert report.error == pytest.approx((0.6**2 + 1.0**2) ** 0.5 / (2.0**2 + 10.0**2) ** 0.5)
    assert [m.name for m in report.worst] == ["a", "b"]
    assert report.as_json()["modules"]["b"] == {"algorithm": "lora", "rank": 2, "error": 0.1, "norm": 10.0}
    assert Report(()).error == 0


def test_no_change_has_no_error():
    found = Measured.of("x", Full(torch.zeros(3, 2)), Full(torch.zeros(3, 2)))
    assert (found.error, found.norm, Report((found,)).error) == (0, 0, 0)


def test_the_worst_module_is_named_where_all_must_be_near():
    made = [Measured("a", "lora", 4, 0.3, 2.0), Measured("b", "lora", 2, 0.1, 10.0)]
    Limits(max_error=0.3).require({}, made)
    with pytest.raises(LycoError, match=r"a: its error is 0\.3 as it would be stored, more than 0\.2"):
        Limits(max_error=0.2).require({}, made)
