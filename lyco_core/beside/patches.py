"""A convolution as the Linear that it is on patches of its input, so that what acts beside a Linear acts beside it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import pad

__all__ = ["Convolution", "patches_of"]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def patches_of(module: Convolution, x: Tensor) -> Tensor:
    """What each output of the convolution is computed from: (…, in, *size) -> (…, *new size, in·kernel).

    `patches @ weight.flatten(1).T` is the convolution, with its channels last.
    """
    dimensions = len(module.kernel_size)
    x = pad(x, _padding(module), mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
    for size, stride, spacing in zip(module.kernel_size, module.stride, module.dilation, strict=True):
        # A dimension that is unfolded gets one more behind all, so the next is always as far from the end.
        x = x.unfold(-dimensions, (size - 1) * spacing + 1, stride)[..., ::spacing]
    return x.movedim(-2 * dimensions - 1, -dimensions - 1).flatten(-dimensions - 1)


def _padding(module: Convolution) -> list[int]:
    """As `pad` takes it: before and after, the last dimension first; of `same`, the odd one is after."""
    if isinstance(module.padding, str):
        spans: Sequence[int] = [
            spacing * (size - 1) if module.padding == "same" else 0
            for spacing, size in zip(module.dilation, module.kernel_size, strict=True)
        ]
        pairs = [(span // 2, span - span // 2) for span in spans]
    else:
        pairs = [(side, side) for side in module.padding]
    return [side for pair in reversed(pairs) for side in pair]
