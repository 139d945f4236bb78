"""How far numbers are from those that are expected."""

from torch import Tensor


def relative(found: Tensor, expected: Tensor) -> float:
    """The relative error, in the Euclidean norm."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())
