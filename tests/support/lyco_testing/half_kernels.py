"""comfy-kitchen as it is on an NVIDIA card: its kernels for NVFP4 and MXFP8 offer to round float32, and refuse it."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import torch

NAMES = ("quantize_nvfp4", "quantize_mxfp8")


@contextlib.contextmanager
def half_kernels() -> Iterator[None]:
    """Have them chosen before the package's plain torch, as the CUDA kernels of 0.2.31 are."""
    import comfy_kitchen
    from comfy_kitchen.backends import eager
    from comfy_kitchen.registry import registry

    def refusing(name: str):
        def kernel(x, *args, **kwargs):
            if x.dtype == torch.float32:
                raise RuntimeError("Unsupported dtype code (only FP16/BF16 supported): 0")
            return getattr(eager, name)(x, *args, **kwargs)

        return kernel

    registry.register("half", SimpleNamespace(**{name: refusing(name) for name in NAMES}), dict.fromkeys(NAMES))
    comfy_kitchen.set_backend_priority(["half", "cuda", "triton", "eager"])
    try:
        yield
    finally:
        comfy_kitchen.set_backend_priority(["cuda", "triton", "eager"])
