"""Adapters beside a weight give what the changed weight gives: every algorithm in every form, alone and in a row."""

import itertools

import pytest
import torch
from lyco_testing.zoo import CASES, normal
from lyco_testing.zoo_on_base import ON_BASE
from torch.nn.functional import linear

from lyco_core.adapters import ANY, Adapter
from lyco_core.beside import Part, computed, settled

LINEAR = [case for case in [*CASES, *ON_BASE] if len(case.shape) == 2 and len(case.make().shape) == 2]
CPU = torch.device("cpu")


def shape_of(adapter: Adapter) -> tuple[int, int]:
    """Of a weight that it fits."""
    out, width = (n if n != ANY else 24 for n in adapter.shape)
    return out, width


def patched(weight: torch.Tensor, parts: list[Part]) -> torch.Tensor:
    """What patches make of it, in float64."""
    result = weight.double()
    for part in parts:
        first, last = part.rows or (0, len(result))
        part.adapter.add_to_(result[first:last], part.strength)
    return result


def check(weight: torch.Tensor, parts: list[Part], *, bias: bool = True, grad: bool = False) -> None:
    offset = normal(len(weight)) if bias else None
    x = normal(2, 5, weight.shape[1]).requires_grad_(grad)
    effects = settled(parts, lambda start, stop: weight[start:stop].clone(), tuple(weight.shape), CPU)
    effects = tuple(effect.to(CPU, x.dtype) for effect in effects)
    found = computed(effects, lambda x: linear(x, weight, offset), offset, x)
    expected = linear(x.double(), patched(weight, parts), None if offset is None else offset.double())
    change = (expected - linear(x, weight, offset).double()).norm()
    assert (found.double() - expected).norm() < 1e-5 * change
    if grad:
        (gradient,) = torch.autograd.grad(found.square().sum(), x)
        (right,) = torch.autograd.grad(expected.square().sum(), x)
        assert (gradient - right).norm() < 1e-4 * right.norm()


@pytest.mark.parametrize("case", LINEAR, ids=lambda case: case.name)
@pytest.mark.parametrize("strength", [1.0, -0.4])
def test_alone(case, strength):
    torch.manual_seed(1)
    adapter = case.make()
    check(normal(*shape_of(adapter)), [Part(adapter, strength)])
    check(normal(*shape_of(adapter)), [Part(adapter, strength)], bias=False, grad=True)


@pytest.mark.parametrize("case", LINEAR, ids=lambda case: case.name)
def test_on_rows_of_a_fused_weight(case):
    torch.manual_seed(2)
    adapter = case.make()
    out, width = shape_of(adapter)
    check(normal(out + 11, width), [Part(adapter, 0.7, (5, 5 + out))])


SQUARE = {case.name: case for case in LINEAR if shape_of(case.make()) == shape_of(LINEAR[0].make())}


@pytest.mark.parametrize("first, second", list(itertools.product(SQUARE, SQUARE)))
def test_one_after_another(first, second):
    torch.manual_seed(3)
    parts = [Part(SQUARE[first].make(), 0.6), Part(SQUARE[second].make(), 0.8)]
    check(normal(*shape_of(parts[0].adapter)), parts)


def test_norms_are_taken_band_by_band(monkeypatch):
    import lyco_core.beside.settle as module

    monkeypatch.setattr(module, "band_size", lambda *_: 7)
    torch.manual_seed(4)
    for case in LINEAR:
        if "dora" in case.name:
            adapter = case.make()
            out, width = shape_of(adapter)
            before = (
                Part(next(iter(SQUARE.values())).make(), 0.5) if (out, width) == shape_of(LINEAR[0].make()) else None
            )
            parts = [part for part in (before, Part(adapter, 0.9)) if part is not None]
            check(normal(out, width), parts)


def test_half_precision_rounds_once_more_than_the_module():
    torch.manual_seed(5)
    case = next(case for case in LINEAR if case.name.startswith("dora-lokr") and case.name.endswith("out"))
    adapter = case.make()
    weight = normal(*shape_of(adapter)).bfloat16()
    x = normal(3, weight.shape[1]).bfloat16()
    read = lambda start, stop: weight[start:stop].float()  # noqa: E731
    effects = [e.to(CPU, x.dtype) for e in settled([Part(adapter, 1.0)], read, tuple(weight.shape), CPU)]
    found = computed(effects, lambda x: linear(x, weight), None, x)
    expected = linear(x.double(), patched(weight, [Part(adapter, 1.0)]))
    assert found.dtype == torch.bfloat16
    assert (found.double() - expected).norm() < 2e-2 * expected.norm()
