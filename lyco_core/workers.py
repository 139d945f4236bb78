"""Work in as many threads as there are cores, each of which computes on its own.

torch shares every operation among all cores and waits for the slowest: of thousands of small ones most of the time is
waiting, and where another program has a core, nearly all.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["Workers", "workers"]

MOST = 16
"""Threads; more wait for memory, not for cores."""
AHEAD = 4
"""Items a thread that are begun before the first one's result is taken."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class Workers:
    """Threads that compute on a core each."""

    def __init__(self, pool: ThreadPoolExecutor, count: int) -> None:
        self._pool = pool
        self._ahead = AHEAD * count

    def each(self, work: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        """What `work` makes of each item, in their order; items are taken, and memory with them, some ahead alone."""
        waiting: deque[Future[Made]] = deque()
        for item in items:
            waiting.append(self._pool.submit(work, item))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def workers() -> Generator[Workers]:
    """The threads; at the end, after an error too, what is begun is waited for and the rest is left."""
    count = min(os.cpu_count() or 1, MOST)
    pool = ThreadPoolExecutor(count)
    try:
        _alone(pool, count)
        yield Workers(pool, count)
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(pool: ThreadPoolExecutor, count: int) -> None:
    """Have each thread take one core for its own: it asks how many there are when it first computes, and no later."""
    all_there = threading.Barrier(count)

    def ask(_: int) -> None:
        all_there.wait()
        torch.get_num_threads()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        list(pool.map(ask, range(count)))
    finally:
        all_there.abort()  # had one thread not come, the others would wait for it
        torch.set_num_threads(threads)
