"""A plugin of pytest with which everything that has a kernel takes it, on the CPU, in Triton's interpreter.

`LYCO_TRITON=1 TRITON_INTERPRET=1 pytest -p lyco_testing.triton_interpreted …`. The interpreter is given the bfloat16 of
a GPU: as it is, it cuts bits off where that rounds, and multiplies bfloat16's bits as if they were whole numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

from lyco_core.fused import launch

__all__ = ["pytest_configure", "pytest_sessionfinish"]

Builder, Handle = interpreter.InterpreterBuilder, interpreter.TensorHandle


def _widened(bits: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(bits).view(np.int16)).view(torch.bfloat16).float().numpy()


def _rounded(numbers: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(numbers)).bfloat16().view(torch.int16).numpy().view(np.uint16)


def pytest_configure() -> None:
    launch.DEVICES.add("cpu")
    cast, dot = Builder.cast_impl, Builder.create_dot

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        pair = src.dtype.scalar, dst_type.scalar
        if pair == (tl.bfloat16, tl.float32):
            return Handle(_widened(src.data), tl.float32)
        if pair == (tl.float32, tl.bfloat16):
            return Handle(_rounded(src.data), tl.bfloat16)
        return cast(self, src, dst_type)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        a, b = (Handle(_widened(t.data), tl.float32) if t.dtype.scalar == tl.bfloat16 else t for t in (a, b))
        return dot(self, a, b, *rest)

    Builder.cast_impl, Builder.create_dot = cast_impl, create_dot


def pytest_sessionfinish(session: Any) -> None:
    """No test has passed by torch because the kernel failed."""
    if launch._Broken.why is not None:
        session.exitstatus = 1
