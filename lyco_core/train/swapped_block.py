"""The weights of a block that is swapped: what each is made of, and where its bytes lie in a buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from torch import Tensor, nn

from ..errors import TrainError

__all__ = ["Block", "known_parts", "stored_parts"]

_ALIGNED = 256
"""Bytes between the beginnings of two tensors in a buffer, whatever their dtypes are."""

_Parts = tuple[list[Tensor], Callable[[list[Tensor]], Tensor]]
"""The plain tensors that a weight is made of, and what makes it of such."""


def stored_parts(weight: Tensor) -> _Parts:
    """What a weight is made of, whoever's class it is. Raises `TrainError` if nobody knows."""
    if (found := known_parts(weight)) is None:
        raise TrainError(
            f"weights of the class {type(weight).__name__} hold more than their numbers; set blocks_to_swap to 0, "
            "without shard_blocks"
        )
    return found


def known_parts(weight: Tensor) -> _Parts | None:
    """What a weight is made of; None if nobody knows, so that it can only be where it is."""
    if type(weight) in (Tensor, nn.Parameter):
        return [weight.detach()], lambda parts: parts[0]
    kind: Any = type(weight)
    if flatten := getattr(weight, "__tensor_flatten__", None):
        names, context = cast("tuple[list[str], Any]", flatten())
        inner: list[Tensor] = [getattr(weight, name) for name in names]
        outer = weight.shape, weight.stride()
        return inner, lambda parts: kind.__tensor_unflatten__(dict(zip(names, parts, strict=True)), context, *outer)
    told = dict(weight.__dict__)
    if any(
        isinstance(value, Tensor) or (hasattr(value, "__dict__") and _holds_tensors(value)) for value in told.values()
    ):
        return None

    def rebuilt(parts: list[Tensor]) -> Tensor:
        made = parts[0].as_subclass(kind)
        made.__dict__.update(told)
        return made

    return [weight.as_subclass(Tensor)], rebuilt


def _holds_tensors(value: object) -> bool:
    return any(isinstance(inner, Tensor) for inner in vars(value).values())


class _Weight:
    """A module's weight where it stays."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.own = module, module.weight
        assert isinstance(self.own, Tensor)
        self.parts, self._rebuilt = stored_parts(self.own)

    def bind(self, parts: list[Tensor] | None = None) -> None:
        """Let the module have the weight that is made of `parts`, or its own."""
        made = self.own if parts is None else nn.Parameter(self._rebuilt(parts), requires_grad=False)
        self.module.weight = made


class Block:
    """All weights of a block that are swapped, and where each part of them lies in a buffer."""

    def __init__(self, modules: Sequence[nn.Module], slices: int = 1) -> None:
        """`slices`: into how many of one size, aligned as parts are, its bytes can be cut."""
        self._weights = [_Weight(module) for module in modules]
        self.size = _room(sum(_room(part.nbytes) for weight in self._weights for part in weight.parts), slices)

    def copy_to(self, buffer: Tensor) -> None:
        """Copy the weights into a buffer."""
        for weight, there in self._places(buffer):
            for place, part in zip(there, weight.parts, strict=True):
                place.copy_(part, non_blocking=True)

    def bind_to(self, buffer: Tensor) -> None:
        """Let the modules have the weights that are in a buffer, which their class may read at once."""
        for weight, there in self._places(buffer):
            weight.bind(there)

    def go(self) -> None:
        """Let the modules have their own weights again; nothing is copied."""
        for weight in self._weights:
            weight.bind()

    def _places(self, buffer: Tensor) -> Iterator[tuple[_Weight, list[Tensor]]]:
        start = 0
        for weight in self._weights:
            there: list[Tensor] = []
            for part in weight.parts:
                there.append(buffer[start : start + part.nbytes].view(part.dtype).view(part.shape))
                start += _room(part.nbytes)
            yield weight, there


def _room(size: int, slices: int = 1) -> int:
    return -(-size // (_ALIGNED * slices)) * _ALIGNED * slices
