"""Blocks that are divided over processes: what each keeps, and that all of them exchange the same in one order.

`test_distributed.py` has two real ones.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from lyco_testing.blocks import Blocks, linears, passes
from torch import Tensor

from lyco_core.errors import TrainError
from lyco_core.train import block_shard
from lyco_core.train.block_shard import BlockShard
from lyco_core.train.distributed import World
from lyco_core.train.frozen import frozen_linears, own_weight
from lyco_core.train.swapped_block import stored_parts

pytestmark = pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo")

COUNT = 6


@pytest.fixture
def exchanged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The blocks that a process exchanges with itself, in their order."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    order: list[int] = []
    gather = block_shard._gather

    def gathers(whole: Tensor, mine: Tensor, **named: object) -> object:
        shard = BlockShards.last
        order.append(next(n for n, block in enumerate(shard._blocks) if shard._slices[block] is mine))
        return gather(whole, mine, **named)

    monkeypatch.setattr(block_shard, "_gather", gathers)
    yield order
    dist.destroy_process_group()


class BlockShards(BlockShard):
    last: BlockShard

    def __init__(self, model: Blocks, world: World | None = None) -> None:
        super().__init__([linears(block) for block in model.blocks], torch.device("cpu"), world or World())
        BlockShards.last = self


@pytest.mark.parametrize("again", [False, True])
def test_the_result_is_that_without(again: bool, exchanged: list[int]):
    model = Blocks(COUNT)
    expected, shard = passes(model, None, again=again), BlockShards(model)
    for module in linears(model):
        module.weight.fill_(torch.nan)  # what is exchanged is what computes
    with shard.attached():
        for backward in (True, False, True, True):
            with shard.one_pass(backward=backward):
                found = passes(model, shard, again=again, backward=backward)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=False))
    forwards, backwards = list(range(COUNT)), list(range(COUNT - 3, -1, -1))
    assert exchanged == forwards + backwards + forwards[2:] + forwards + backwards + forwards[2:] + backwards
    assert all(bool(module.weight.isnan().all()) for module in linears(model))


def nothing(model: Blocks, shard: BlockShard) -> None:
    """A process that has no item in a batch."""


def no_backward(model: Blocks, shard: BlockShard) -> None:
    """Dropout has left nothing of the network in it."""
    passes(model, shard, backward=False)


def short_backward(model: Blocks, shard: BlockShard) -> None:
    """Dropout has left nothing of the network in the first blocks."""
    with frozen_linears(linears(model), shard.weights(own_weight)):
        x = torch.ones(3, 24)
        for number, block in enumerate(model.blocks):
            x = block(x.requires_grad_() if number == 4 else x)
        x.sum().backward()


def some(model: Blocks, shard: BlockShard) -> None:
    """Whole blocks are left out."""
    with frozen_linears(linears(model), shard.weights(own_weight)):
        model.blocks[4](model.blocks[1](torch.ones(3, 24).requires_grad_())).sum().backward()


@pytest.mark.parametrize("computes", [nothing, no_backward, short_backward, some])
def test_whatever_a_process_computes_it_exchanges_the_same(
    computes: Callable[[Blocks, BlockShard], None], exchanged: list[int]
):
    model = Blocks(COUNT)

    def exchanges(*parts: Callable[[Blocks, BlockShard], object]) -> list[int]:
        exchanged.clear()
        shard = BlockShards(model)
        with shard.attached():
            for part in parts:
                with shard.one_pass(backward=True):
                    part(model, shard)
        return exchanged.copy()

    expected = exchanges(passes, passes, passes)
    assert len(expected) == 3 * (2 * COUNT - 4) + 2
    assert exchanges(computes, passes, computes) == expected
    assert exchanges(passes, computes, passes) == expected


def test_blocks_in_no_order_are_refused(exchanged: list[int]):
    model = Blocks(3)
    shard = BlockShards(model)
    with shard.attached(), frozen_linears(linears(model), shard.weights(own_weight)):
        x = torch.ones(3, 24)
        with (
            pytest.raises(TrainError, match=r"do not compute one after the other.*set shard_blocks to false"),
            shard.one_pass(backward=True),
        ):
            for number in (1, 0, 2):
                x = model.blocks[number](x)
        with shard.one_pass(backward=False):
            assert torch.equal(model.blocks[0](x), model.blocks[0](x))


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_each_process_keeps_its_part_alone(processes: int):
    """Of equal sizes, and together every byte, of whichever dtype."""
    model = Blocks(2)
    model.blocks[1].to(torch.float8_e4m3fn)
    shards = [BlockShards(model, World(rank, processes)) for rank in range(processes)]
    assert len({shard.kept for shard in shards}) == 1
    assert shards[0].kept * processes < sum(256 * processes + block.size for block in shards[0]._blocks)
    for number, block in enumerate(model.blocks):
        whole = torch.cat([shard._slices[shard._blocks[number]] for shard in shards])
        start = 0
        for module in linears(block):
            (part,) = stored_parts(module.weight)[0]
            found = whole[start : start + part.nbytes].view(part.dtype).view(part.shape)
            assert torch.equal(found.float(), part.float())
            start += -(-part.nbytes // 256) * 256
