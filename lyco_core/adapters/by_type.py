"""Functions of adapters that each algorithm answers in its own way, found by the adapter's type."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar

from .base import Adapter

__all__ = ["ByType"]

A = TypeVar("A", bound=Adapter)
P = ParamSpec("P")
R = TypeVar("R")


class ByType(Generic[P, R]):
    """`functools.singledispatch`, typed, and without a default: an algorithm that has no answer must say so.

    Decorates a function whose body is its docstring. `tests/adapters/test_by_type.py` fails for each
    of `ALL` that has nothing registered for an algorithm, or for a class that it derives from.
    """

    ALL: ClassVar[list[ByType[..., Any]]] = []
    """Every such function of the modules that are imported."""

    def __init__(self, declared: Callable[Concatenate[Adapter, P], R]) -> None:
        self.name = f"{declared.__module__}.{declared.__qualname__}"
        self._dispatched = functools.singledispatch(self._refuse)
        functools.update_wrapper(self, declared)
        ByType.ALL.append(self)

    def __call__(self, adapter: Adapter, *args: P.args, **kwargs: P.kwargs) -> R:
        """What is registered for the adapter's type. Raises `NotImplementedError` if nothing is."""
        return self._dispatched(adapter, *args, **kwargs)

    def register(self, *types: type[A]) -> Callable[[Callable[Concatenate[A, P], R]], Callable[Concatenate[A, P], R]]:
        """Decorates the function that answers for `types`, and for those that derive from them."""

        def registered(function: Callable[Concatenate[A, P], R]) -> Callable[Concatenate[A, P], R]:
            for cls in types:
                self._dispatched.register(cls, function)
            return function

        return registered

    def knows(self, cls: type[Adapter]) -> bool:
        """Whether adapters of this type have an answer."""
        return self._dispatched.dispatch(cls) != self._refuse

    def _refuse(self, adapter: Adapter, *_: object, **__: object) -> R:
        raise NotImplementedError(f"{self.name} knows no {type(adapter).__name__}; register what it answers for one")
