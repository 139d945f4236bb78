"""Memory that runs out, in a line that says what helps."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import torch

from ....lyco_core.errors import TrainError


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on a GPU or in the computer's own."""
    kinds = tuple(filter(None, (getattr(torch, "OutOfMemoryError", None), torch.cuda.OutOfMemoryError, MemoryError)))
    phrases = ("out of memory", "not enough memory", "can't allocate memory")  # what torch says on MPS, and on the CPU
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and any(text in str(error) for text in phrases))


def first_line(error: BaseException) -> str:
    """The first line of an error: how much memory was asked for when it ran out."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def with_needs(known: Sequence[str], error: BaseException) -> str:
    """What is known of how much memory is needed, a line each, and what was asked for when it ran out."""
    return " ".join([*(f"It {line}." for line in known), first_line(error)])


@contextmanager
def memory_for(doing: str, helps: str, known: Callable[[], Sequence[str]] = tuple) -> Generator[None]:
    """Raise `TrainError` for memory that runs out inside.

    Args:
        doing: what goes on then.
        helps: what a person can do, most helpful first.
        known: what is known by then of how much memory it needs.
    """
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        told = with_needs(known(), error)
        raise TrainError(f"out of memory while {doing}. What helps: {helps}. {told}") from error
