"""ComfyUI's functions that gradients cannot pass, as plain torch while a model trains.

Fused kernels of comfy_kitchen have no backward pass, and where a block asks for one without looking whether it trains
there is no other way; a norm keeps its input, which blocks of LTX change in place afterwards; and blocks of language
models write their sum into their input, which autograd refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import comfy.ldm.common_dit
import comfy.text_encoders.llama
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def with_gradients() -> Generator[None]:
    """Inside, they give what they give outside, and gradients."""
    replaced: list[tuple[Any, str, Any]] = []
    try:
        for module, functions in (
            (_kitchen(), _KERNELS),
            (comfy.ldm.common_dit, {"rms_norm": _rms_norm(comfy.ldm.common_dit.rms_norm)}),
            (_LANGUAGE, {"forward": _without_out(_LANGUAGE.forward)}),
        ):
            for name, function in functions.items():
                if hasattr(module, name):
                    replaced.append((module, name, getattr(module, name)))
                    setattr(module, name, function)
        yield
    finally:
        for module, name, function in replaced:
            setattr(module, name, function)


def _kitchen() -> Any:
    """comfy_kitchen, as ComfyUI's models call it; None where they do not."""
    try:
        from comfy.quant_ops import ck
    except ImportError:  # 0.3.64 has no such module
        return None
    return ck


def _split_half1(x: Tensor, freqs: Tensor) -> Tensor:
    """Rotate pairs that lie half a head apart."""
    pairs = x.reshape(*x.shape[:-1], 2, -1).movedim(-2, -1).unsqueeze(-2).to(freqs.dtype)
    turned = freqs[..., 0] * pairs[..., 0] + freqs[..., 1] * pairs[..., 1]
    return turned.movedim(-1, -2).reshape(x.shape).to(x.dtype)


def _interleaved1(x: Tensor, freqs: Tensor) -> Tensor:
    """Rotate pairs that lie side by side."""
    pairs = x.reshape(*x.shape[:-1], -1, 1, 2).to(freqs.dtype)
    return (freqs[..., 0] * pairs[..., 0] + freqs[..., 1] * pairs[..., 1]).reshape(x.shape).to(x.dtype)


def _normed(rotate: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    def both(
        q: Tensor, k: Tensor, freqs: Tensor, q_scale: Tensor, k_scale: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        normed = (torch.nn.functional.rms_norm(x, x.shape[-1:], s.to(x), eps) for x, s in ((q, q_scale), (k, k_scale)))
        q, k = (rotate(x, freqs) for x in normed)
        return q, k

    return both


def _rms_norm(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, *args, **named: function(x.clone(), *args, **named)


_LANGUAGE = comfy.text_encoders.llama.TransformerBlock


class _NewTensors(TorchFunctionMode):
    """Inside, what torch's functions make is a tensor of its own where autograd is on, and not written into `out`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if torch.is_grad_enabled():  # which it is not inside of a Linear's own function
            named = {name: value for name, value in named.items() if name != "out"}
        return func(*args, **named)


def _without_out(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(block: object, *args: Any, **named: Any) -> Any:
        with _NewTensors():
            return forward(block, *args, **named)

    return run


_KERNELS: dict[str, Callable[..., Any]] = {
    "apply_rope_split_half": lambda q, k, freqs: (_split_half1(q, freqs), _split_half1(k, freqs)),
    "apply_rope_split_half1": _split_half1,
    "rms_rope_split_half": _normed(_split_half1),
    "rms_rope": _normed(_interleaved1),
}
"""Name in comfy_kitchen -> the same in torch."""
