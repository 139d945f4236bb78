"""A model of equal frozen blocks, and what a pass through it gives."""

import torch
from torch import Tensor, nn

from lyco_core.train.block_swap import BlockSwap
from lyco_core.train.frozen import frozen_linears, own_weight
from lyco_core.train.offloading import offloaded_checkpoint

WIDTH = 24


class Blocks(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)) for _ in range(count)
        )
        self.requires_grad_(False)

    def forward(self, x: Tensor, *, again: bool) -> Tensor:
        for block in self.blocks:
            x = x + (offloaded_checkpoint(block, [x], {}) if again else block(x))
        return x


def linears(block: nn.Module) -> list[nn.Module]:
    return [module for module in block.modules() if isinstance(module, nn.Linear)]


def passes(model: Blocks, swap: BlockSwap | None, *, again: bool = False, backward: bool = True) -> list[Tensor]:
    """The output and the gradient of an input."""
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weight_of = own_weight if swap is None else swap.weights(own_weight)
    with frozen_linears(linears(model), weight_of):
        y = model(x, again=again)
        if not backward:
            return [y]
        return [y, *torch.autograd.grad(y.square().sum(), x)]
