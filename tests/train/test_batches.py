"""Which items come in which batch, and what is no item."""

import pytest
import torch
from lyco_testing.toy_training import ITEMS, latent

from lyco_core.errors import TrainError
from lyco_core.train.batches import Batches, require_items, require_one_shape
from lyco_core.train.items import Item


def test_every_item_comes_as_often_as_it_is_to_and_shapes_never_mix():
    items = [
        Item(latent(0), 0.0),
        Item(latent(1, 4, 6), 0.0, repeats=3),
        Item(latent(2), 0.0, repeats=2),
        Item(latent(3, 4, 6), 0.0, batch_size=1),
    ]
    batches = Batches(items, 2, 1, seed=5)
    epochs = [[batches[e * len(batches) + i] for i in range(len(batches))] for e in range(3)]
    for epoch in epochs:
        assert sorted(index for batch in epoch for index in batch) == [0, 1, 1, 1, 2, 2, 3]
        for batch in epoch:
            assert len({items[index].latent.shape for index in batch}) == 1
            assert len(batch) <= 2
    assert epochs[0] != epochs[1]
    assert [Batches(items, 2, 1, seed=5)[i] for i in range(6)] == [batches[i] for i in range(6)]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the dataset is empty"),
        ([Item(torch.zeros(4), 0, "x")], r"x: the latent is \[4\], expected"),
        ([ITEMS[0], Item(latent(1, 4, 6), 0)], r"2 different shapes \(24x4x4, 24x4x6\); set enable_bucket"),
    ],
)
def test_items_that_cannot_be(items: list, message: str):
    with pytest.raises(TrainError, match=message):
        require_items(items)
        require_one_shape(items)
