"""Losses by sd-scripts' names, against figures worked out by hand."""

import math

import pytest
import torch
from lyco_testing.toy_training import ITEMS, steps, training

from lyco_core.errors import TrainError
from lyco_core.train.losses import LossOptions, item_losses

DIFFERENCE = torch.tensor([[[3.0, -1.0], [0.0, 2.0]], [[0.5, 0.5], [-4.0, 0.0]]])
T = torch.tensor([0.0, 0.5])


def huber(d: float, c: float) -> float:
    return 2 * c * (math.sqrt(d * d + c * c) - c)


@pytest.mark.parametrize(
    ("options", "each"),
    [
        ({}, lambda d, t: d * d),
        ({"loss_type": "l1"}, lambda d, t: abs(d)),
        ({"loss_type": "huber"}, lambda d, t: huber(d, 0.1**t)),
        ({"loss_type": "smooth_l1"}, lambda d, t: huber(d, 0.1**t) / 0.1**t),
        ({"loss_type": "huber", "huber_schedule": "constant", "huber_c": 0.3}, lambda d, t: huber(d, 0.3)),
        (
            {"loss_type": "smooth_l1", "huber_schedule": "constant", "huber_c": 0.3, "huber_scale": 2.0},
            lambda d, t: huber(d, 0.6) / 0.6,
        ),
        ({"loss_type": "huber", "huber_scale": 0.5}, lambda d, t: huber(d, 0.5 * 0.1**t)),
    ],
)
def test_of_an_item(options: dict[str, object], each):
    found = item_losses(LossOptions(**options), DIFFERENCE, T)
    expected = [
        sum(each(d, t) for d in item.flatten().tolist()) / 4 for item, t in zip(DIFFERENCE, T.tolist(), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_it_is_what_is_trained_and_not_what_is_validated():
    kinds = ("l2", "l1", "huber", "smooth_l1")
    losses = {kind: steps(training(loss_type=kind), 2)[-1].loss for kind in kinds}
    assert len(set(losses.values())) == 4
    made = [training(validation=ITEMS, loss_type=kind) for kind in kinds]
    found: set[float] = set()
    for one in made:
        with one.network.attached(one.model.model):
            found.add(one.validate())
    assert len(found) == 1


def test_nothing_is_no_loss():
    with pytest.raises(TrainError, match="huber_scale is 0, and loss_type huber is then 0 or l1"):
        LossOptions(loss_type="huber", huber_scale=0.0)
    assert LossOptions(huber_c=0.0).huber_c == 0
