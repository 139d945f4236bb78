"""`scale_weight_norms`: the norm of ΔW from its factors, and that no step leaves one above the limit."""

import pytest
import torch
from lyco_testing.toy_training import numbers, steps, training

from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.trainable import TRAINABLES, Trainable
from lyco_core.train.weight_norms import limit_norms

SHAPE = (600, 90)


def delta(of: Trainable) -> torch.Tensor:
    return of.adapter().add_to_(torch.zeros(SHAPE))


def made(algorithm: str, rank: int, factor: int = -1):
    options = NetworkOptions(algorithm, rank, network_alpha=rank / 2, factor=factor)
    generator = torch.Generator().manual_seed(3)
    found = TRAINABLES[algorithm].initial(SHAPE, options, generator)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(generator=generator)
    return found


CASES = [("lora", 4), ("loha", 3), ("loha", 40), ("lokr", 4), ("lokr", 400)]


@pytest.mark.parametrize(("algorithm", "rank"), CASES)
def test_norm(algorithm: str, rank: int):
    found = made(algorithm, rank)
    with torch.no_grad():
        assert float(found.norm()) == pytest.approx(float(delta(found).norm()), rel=1e-5)


@pytest.mark.parametrize(("algorithm", "rank"), CASES)
def test_limit(algorithm: str, rank: int):
    """What is above comes down to it in its own direction; what is below stays, bit for bit."""
    large, small = made(algorithm, rank), made(algorithm, rank)
    before = delta(large)
    limit = float(before.norm()) / 3
    with torch.no_grad():
        next(small.parameters()).mul_(0.1)
    kept = [parameter.detach().clone() for parameter in small.parameters()]
    limit_norms([large, small], limit)
    assert torch.allclose(delta(large), before / 3, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(one, two) for one, two in zip(small.parameters(), kept, strict=True))


@pytest.mark.parametrize("algorithm", TRAINABLES)
def test_no_step_leaves_one_above_it(algorithm: str):
    free, held = (training(network_module=algorithm, scale_weight_norms=limit) for limit in (0.0, 0.02))
    for one in (free, held):
        steps(one, 4)
    with torch.no_grad():
        largest = [max(float(t.norm()) for t in one.network.trainables.values()) for one in (free, held)]
    assert largest[0] > 0.03
    assert largest[1] <= 0.02 * (1 + 1e-5)
    assert not torch.equal(numbers(free), numbers(held))
