"""Shows in the first model call that no adapter beside a weight is passed by.

A seat that did not act in it is either not needed, since this workflow does not compute its module, or passed by,
since something multiplies by the weight without calling the module, or goes by a graph that was compiled before. The
call is made once more to tell: without compiled graphs, and watching who touches the weight. That costs a call where
modules are idle, and nothing where none is. What a model computes of its conditioning, before any call (LTX-2's
connectors, Anima's adapter of the text), is watched when it does so first.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .....lyco_core.errors import PlacementError
from .....lyco_core.text import shorten
from ..weights import own_parameter
from .seat import Seat, Seats

log = logging.getLogger("lyco")


def checked_call(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """ComfyUI calls this around every call of a diffusion model that has adapters beside its weights."""
    seats = Seats.of(executor.class_obj)
    if seats is not None:
        seats.tune(executor.class_obj.current_patcher, args[1])
    output = executor(*args, **kwargs)
    if seats is not None and not seats.proven:
        _prove(seats.seats, lambda: executor(*args, **kwargs))
        seats.proven = True
    return output


def watch_calls(model: nn.Module) -> None:
    """Check the first call of what `checked_call` does not surround: conditioning, and each part of a text encoder."""
    seats = Seats.of(model)
    if seats is None:
        return
    if hasattr(model, "extra_conds"):
        _watch_conditioning(model, seats)
        return
    stops: list[Callable[[], None]] = []
    for name, child in model.named_children():
        if own := [seat for seat in seats.seats if seat.path.startswith(f"{name}.")]:
            stops.append(_watch_once(child, own))

    def stop_all() -> None:
        for stop in stops:
            stop()

    seats.at_leaving = stop_all


def _watch_conditioning(model: nn.Module, seats: Seats) -> None:
    """In the place of `extra_conds`, through which ComfyUI has a diffusion model see its conditioning."""
    before = model.__dict__.get("extra_conds")
    conditioning = cast(Callable[..., Any], model.extra_conds)

    def watched(*args: Any, **kwargs: Any) -> Any:
        stop()
        if Seats.of(model) is not seats:
            return conditioning(*args, **kwargs)
        with _uncompiled(), _Touches(seats.seats) as touched:
            made = conditioning(*args, **kwargs)
        _refuse_passed_by(seats.seats, touched)
        if once := [seat.path for seat in seats.seats if seat.acted and seat.varies]:
            log.warning(
                "%d modules with an adapter (%s) are computed of the prompt once, before the first step: hooks do not "
                "act there, and a strength_schedule as at its beginning",
                len(once),
                shorten(once),
            )
        return made

    def stop() -> None:
        if model.__dict__.get("extra_conds") is not watched:
            return
        del model.extra_conds
        if before is not None:
            model.extra_conds = before

    seats.at_leaving = stop
    model.__dict__["extra_conds"] = watched


def _watch_once(child: nn.Module, seats: list[Seat]) -> Callable[[], None]:
    """Check a part's next call; what takes that back, for seats that are given back before it."""

    def check(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: object) -> None:
        handle.remove()
        _prove(seats, lambda: module.forward(*args, **kwargs))

    handle = child.register_forward_hook(check, with_kwargs=True)
    return handle.remove


def _prove(seats: Iterable[Seat], again: Callable[[], object]) -> None:
    """Raise `PlacementError` if an adapter is passed by."""
    idle = [seat for seat in seats if not seat.acted]
    if not idle:
        return
    with _uncompiled(), _Touches(idle) as touched:
        again()
    compiled = [seat.path for seat in idle if seat.acted]
    if compiled:
        raise PlacementError(
            f"{len(compiled)} adapters were not computed ({shorten(compiled)}): the model goes by a graph that was "
            "compiled without them. Compile it after the adapter is loaded (TorchCompileModel behind the loader), or "
            f"{_instead(idle)}"
        )
    _refuse_passed_by(idle, touched)
    names = shorten([seat.path for seat in idle])
    log.info("%d modules with an adapter are not computed in this model call (%s)", len(idle), names)


def _refuse_passed_by(seats: Sequence[Seat], touched: _Touches) -> None:
    """Raise `PlacementError` if a weight was used and its seat did not act."""
    passed_by = [seat.path for seat in seats if not seat.acted and seat.path in touched.paths]
    if passed_by:
        raise PlacementError(
            f"{len(passed_by)} adapters were not computed ({shorten(passed_by)}): this model multiplies by those "
            f"weights without calling their modules, so that nothing beside them acts; {_instead(seats)}"
        )


def _instead(seats: Iterable[Seat]) -> str:
    """What to do where nothing beside the weights acts."""
    if any(seat.varies for seat in seats):
        return "load it without strength_schedule and without a hook, in the mode 'patch the weights'"
    return "choose the mode 'patch the weights'"


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Without compiled graphs, where torch can do that (2.6)."""
    stance = getattr(torch.compiler, "set_stance", None)
    return contextlib.nullcontext() if stance is None else stance("force_eager")


class _Touches(TorchFunctionMode):
    """Sees whose weight is an argument of a torch function, or is fetched by ComfyUI's `cast_bias_weight`."""

    def __init__(self, seats: Iterable[Seat]) -> None:
        super().__init__()
        self.paths: set[str] = set()
        self._seats = list(seats)
        self._weights: dict[int, str] = {}
        self._fetches = contextlib.ExitStack()

    def __enter__(self) -> _Touches:
        for seat in self._seats:
            weight = own_parameter(seat.module, "weight")
            for tensor in (weight, getattr(weight, "_qdata", None)):
                if tensor is not None:
                    self._weights[id(tensor)] = seat.path
            self._fetches.enter_context(self._watched_fetch(seat))
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._fetches.close()
        super().__exit__(*exception)

    @contextlib.contextmanager
    def _watched_fetch(self, seat: Seat) -> Generator[None]:
        """ComfyUI lets a module's `weight_function` see every weight that it brings to the device."""
        functions = getattr(seat.module, "weight_function", None)
        if functions is None:
            yield
            return
        own = "weight_function" in seat.module.__dict__

        def seen(weight: Tensor) -> Tensor:
            self.paths.add(seat.path)
            return weight

        seat.module.weight_function = [*functions, seen]
        try:
            yield
        finally:
            if own:
                seat.module.weight_function = functions
            else:
                del seat.module.weight_function

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # Of `weight.device` and the like nothing is computed.
        if getattr(function, "__name__", "") != "__get__":
            for argument in (*args, *kwargs.values()):
                for tensor in argument if isinstance(argument, (list, tuple)) else (argument,):
                    if id(tensor) in self._weights:
                        self.paths.add(self._weights[id(tensor)])
        return function(*args, **kwargs)
