"""Blocks that come to the device when they are needed: their order, what is copied, and whose weights they are."""

import pytest
import torch
from lyco_testing.blocks import Blocks, linears, passes
from torch import Tensor, nn

from lyco_core.errors import TrainError
from lyco_core.train.block_swap import BlockSwap, spread
from lyco_core.train.offloading import offloaded_checkpoint
from lyco_core.train.swapped_block import stored_parts


def swapping(model: Blocks, which: list[int]) -> BlockSwap:
    return BlockSwap([linears(model.blocks[index]) for index in which], torch.device("cpu"))


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("which", [[0, 1, 2, 3, 4, 5], [1, 3, 5], [2], [0, 5]])
def test_the_result_is_that_without(which: list[int], again: bool):
    model = Blocks(6)
    expected = passes(model, None, again=again)
    swap = swapping(model, which)
    with swap.attached():
        for _ in range(2):
            found = passes(model, swap, again=again)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_buffers_are_what_computes(monkeypatch):
    """Had a module kept its own weight on a device that has not the memory, nothing would have been saved."""
    model = Blocks(4)
    swap = swapping(model, [0, 1, 2, 3])
    own = {module.weight.data_ptr() for module in linears(model)}
    seen: list[int] = []
    linear = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda x, w, b: (seen.append(w.data_ptr()), linear(x, w, b))[1])
    with swap.attached():
        passes(model, swap)
    places = [range(buffer.data_ptr(), buffer.data_ptr() + buffer.nbytes) for buffer in swap._buffers]
    assert len(seen) == 8
    assert all(any(where in place for place in places) for where in seen)
    assert {module.weight.data_ptr() for module in linears(model)} == own
    assert all("forward" not in vars(module) for module in linears(model))


def test_no_block_comes_twice_where_once_is_enough():
    """Forward S, and backward S without the two that are still there; so is the forward pass of the next step."""
    model, count = Blocks(7), 5
    swap = swapping(model, [1, 2, 3, 5, 6])
    size = swap._blocks[0].size
    with swap.attached():
        passes(model, swap, again=True)
        assert swap.copied == (count + count - 2) * size
        passes(model, swap, again=True)
        assert swap.copied == (count + count - 2 + 2 * (count - 2)) * size
        passes(model, swap, backward=False)
        before = swap.copied
        passes(model, swap, backward=False)  # a pass that begins anew, as one that only tries
        assert swap.copied == before + count * size
    assert swap.size == 2 * size
    assert swapping(model, [3]).size == size


def test_the_next_block_comes_while_one_computes():
    model = Blocks(6)
    swap = swapping(model, list(range(6)))
    here: list[tuple[int, list[int | None]]] = []
    for rank, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, rank=rank: here.append((rank, sorted(swap._held))))
        block.register_full_backward_hook(lambda *_, rank=rank: here.append((rank, sorted(swap._held))))
    with swap.attached():
        passes(model, swap)
    forward = [(rank, [rank, rank + 1]) for rank in range(5)] + [(5, [4, 5])]
    backward = [(5, [4, 5])] + [(rank, [rank - 1, rank]) for rank in (4, 3, 2, 1)] + [(0, [0, 1])]
    assert here == forward + backward


@pytest.mark.parametrize(
    ("sizes", "wanted", "expected"),
    [
        ([1] * 4, 2, [0, 2]),
        ([1] * 4, 4, [0, 1, 2, 3]),
        ([1] * 6, 1, [2]),
        ([2, 2, 1, 1, 1, 1], 2, None),  # FLUX's single blocks: two count as one
        ([2, 2, 1, 1, 1, 1], 4, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_which_blocks_are_swapped(sizes: list[float], wanted: int, expected: list[int] | None):
    found = spread(sizes, wanted)
    assert expected is None or found == expected
    assert abs(sum(sizes[index] for index in found) - wanted * max(sizes)) <= max(sizes) / 2


@pytest.mark.parametrize("count", range(1, 61))
def test_as_many_as_are_asked_for(count: int):
    assert len(spread([340.0] * 60, count)) == count


class Tagged(Tensor):
    """A pack's own: bytes with a note."""


def test_the_class_of_a_weight_stays():
    stored = torch.arange(6.0).as_subclass(Tagged)
    stored.note = "Q8_0"
    parts, rebuilt = stored_parts(stored)
    assert type(parts[0]) is Tensor
    made = rebuilt([parts[0].clone()])
    assert type(made) is Tagged
    assert made.note == "Q8_0"
    assert made.tolist() == stored.tolist()
    stored.state = torch.ones(2)
    with pytest.raises(
        TrainError, match=r"weights of the class Tagged hold more than their numbers; set blocks_to_swap"
    ):
        stored_parts(stored)


def test_inputs_wait_in_the_computers_memory():
    """What has a gradient, once a block; what all of them share stays where it is."""
    shared, seen = torch.randn(3, 4), []

    def block(x: Tensor, *, y: Tensor) -> Tensor:
        seen.append((x.data_ptr(), y.data_ptr()))
        return x * 2 * y

    x = torch.randn(3, 4, requires_grad=True)
    offloaded_checkpoint(block, [x], {"y": shared}).sum().backward()
    assert torch.equal(x.grad, 2 * shared)
    (first, kept), (second, again) = seen
    assert first != second
    assert kept == again
