"""Tensors that do not make an adapter, and alphas that do not make a scale."""

import pytest
from lyco_testing.zoo import normal

from lyco_core.adapters import LoHa, LoKr, LoRA
from lyco_core.errors import AdapterError

REFUSED = {
    "a LoRA without down": (lambda: LoRA(normal(4, 2), None), "down missing"),
    "a LoRA of two ranks": (lambda: LoRA(normal(4, 2), normal(3, 5)), "rank 2 against 3"),
    "a scalar for a matrix": (lambda: LoRA(normal(4), normal(4, 2)), "dimensions"),
    "an empty matrix": (lambda: LoRA(normal(4, 0), normal(0, 5)), "non-empty"),
    "a LoHa without w2_b": (lambda: LoHa(normal(4, 2), normal(2, 5), normal(4, 2), None), "w2_b missing"),
    "a LoHa of two ranks": (
        lambda: LoHa(normal(4, 2), normal(2, 5), normal(4, 3), normal(3, 5)),
        "both halves of a LoHa have one rank",
    ),
    "a LoHa of two shapes": (
        lambda: LoHa(normal(4, 2), normal(2, 5), normal(4, 2), normal(2, 6)),
        "both halves of a LoHa have one shape",
    ),
    "half a Tucker LoHa": (
        lambda: LoHa(normal(2, 4), normal(2, 5), normal(2, 4), normal(2, 5), t1=normal(2, 2, 3, 3)),
        "t2 missing",
    ),
    "a LoKr without w1": (lambda: LoKr(w2=normal(4, 4)), "w1_a and w1_b missing"),
    "a LoKr without w2_b": (lambda: LoKr(w1=normal(2, 2), w2_a=normal(4, 2)), "w2_b missing"),
    "a LoKr with w2 twice": (
        lambda: LoKr(w1=normal(2, 2), w2=normal(4, 4), w2_a=normal(4, 2)),
        "both whole and as a product",
    ),
    "a LoKr that cannot multiply": (
        lambda: LoKr(w1=normal(2, 2), w2_a=normal(4, 2), w2_b=normal(3, 4)),
        "cannot multiply",
    ),
    "a kernel in up": (lambda: LoRA(normal(8, 2, 3, 3), normal(2, 5)), "a kernel where none can be"),
    "a kernel in a Tucker LoRA's down": (
        lambda: LoRA(normal(8, 2, 1, 1), normal(2, 5, 3, 3), normal(2, 2, 3, 3)),
        "a kernel where none can be",
    ),
    "a one-dimensional up with a core": (lambda: LoRA(normal(8), normal(2, 5), normal(2, 2, 3, 3)), "dimensions"),
    "a kernel in a LoHa's w1_a": (
        lambda: LoHa(normal(8, 2, 2), normal(2, 5), normal(8, 2), normal(2, 5)),
        "a kernel where none can be",
    ),
    "a LoKr w1_a of three dimensions": (
        lambda: LoKr(w1_a=normal(4, 2, 1), w1_b=normal(2, 4), w2=normal(4, 4)),
        "expected two dimensions",
    ),
    "a Tucker core of another rank": (
        lambda: LoKr(w1=normal(2, 2), w2_a=normal(2, 4), w2_b=normal(2, 5), t2=normal(3, 3, 3, 3)),
        "t2 has shape",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    make, message = REFUSED[name]
    with pytest.raises(AdapterError, match=message):
        make()


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), 1e300, 0.0])
def test_alpha_that_makes_no_scale(alpha: float):
    with pytest.raises(AdapterError, match="alpha is"):
        LoRA(normal(4, 2), normal(2, 5), alpha=alpha)


@pytest.mark.parametrize("alpha", [9999999999.0, float("inf"), 0.0, None])
def test_alpha_of_a_full_lokr_is_never_used(alpha: float | None):
    """ai-toolkit stores 9999999999, which float16 turns into Inf."""
    assert LoKr(w1=normal(2, 2), w2=normal(3, 3), alpha=alpha).scale == 1.0


def test_scale_of_two_low_rank_factors_is_applied_once():
    adapter = LoKr(w1_a=normal(4, 2), w1_b=normal(2, 4), w2_a=normal(4, 2), w2_b=normal(2, 4), alpha=1.0)
    assert adapter.scale == 0.5
