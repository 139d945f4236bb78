"""Threads that compute on a core each: results in order, errors that end the rest, torch's own threads as they were."""

import itertools
import threading

import pytest
import torch

from lyco_core.workers import workers


def test_in_order_and_on_one_core_each():
    before = torch.get_num_threads()
    with workers() as threads:
        found = list(threads.each(lambda n: (n, torch.get_num_threads(), threading.current_thread().name), range(100)))
        assert torch.get_num_threads() == before
    assert [n for n, *_ in found] == list(range(100))
    assert {count for _, count, _ in found} == {1}
    assert threading.current_thread().name not in {name for *_, name in found}


def test_an_error_ends_the_rest():
    """Of endless items too, which are taken some ahead alone."""
    taken: list[int] = []

    def work(n: int) -> int:
        taken.append(n)
        if n == 5:
            raise ValueError(n)
        return n

    with pytest.raises(ValueError, match="5"), workers() as threads:
        for _ in threads.each(work, itertools.count()):
            pass
    assert len(taken) < 200
