"""A ComfyUI model made fit for gradients, and put back afterwards.

ComfyUI's models are written for sampling: nodes make their weights in inference mode, the position
encoding is a kernel without a backward pass, attention may be too, and the blocks of FLUX's family
add to their input in place. The last is the dangerous one: under torch's checkpointing, as stock
training uses it, the gradients come out wrong without a word (measured: by 12 to 77 %).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.weight_adapter.base import WeightAdapterBase
from torch import nn
from torch.utils.checkpoint import checkpoint

from ....lyco_core.architectures import TrainedFamily
from ....lyco_core.train.block_swap import BlockSwap
from ....lyco_core.train.frozen import frozen_linears, thaw
from ....lyco_core.train.offloading import offloaded_checkpoint
from ..model.kept_passes import forgetting
from ..protocols import ModelPatcher
from .backward import weights_of
from .kernels import with_gradients
from .linears import blocks_of, linears_of

ATTENTION = {"optimized_attention_override": lambda _, *args, **named: attention_pytorch(*args, **named)}
"""A transformer option: torch's own attention, which has a backward pass; sage attention has none."""


@contextmanager
def differentiable(
    patcher: ModelPatcher,
    trained: TrainedFamily,
    dtype: torch.dtype,
    *,
    checkpointing: bool,
    offload: bool = False,
    swap: BlockSwap | None = None,
) -> Generator[None]:
    """Inside, gradients flow through a patcher's loaded model to its inputs and to hooks, and none to its weights.

    What the patcher injects, adapters beside weights, is injected inside alone, over the frozen modules.

    Args:
        trained: what is known of the model's family.
        dtype: in which the model computes.
        checkpointing: compute each block again in the backward pass, instead of keeping what it needs.
        offload: what they keep all the same, their inputs, waits in the computer's memory.
        swap: has the weights of blocks that are not on the device.

    Raises:
        TrainError: the weight of a module cannot be read.
    """
    model = patcher.model
    with ExitStack() as undo:
        undo.enter_context(torch.inference_mode(False))
        undo.enter_context(torch.enable_grad())
        model.requires_grad_(False)
        thaw(model)
        undo.enter_context(_training_mode())
        undo.enter_context(with_gradients())
        undo.enter_context(_forgetting(model))
        _settle_attention(patcher.load_device)
        patcher.eject_model()  # a clone says of itself what its original was
        linears = linears_of(model)
        if swap is not None:
            undo.enter_context(swap.attached())
        weight_of = weights_of(linears.items(), dtype)
        undo.enter_context(frozen_linears(linears.values(), swap.weights(weight_of) if swap else weight_of))
        patcher.inject_model()
        undo.callback(patcher.eject_model)
        _thaw_bypasses(linears.values())
        for name, module in model.named_modules():
            if name.rpartition(".")[2] in trained.comfyui_norms:
                undo.callback(module.register_forward_pre_hook(_cloned).remove)
        if checkpointing:
            # The last one's backward pass comes first: forgotten, it would be made again at once.
            for block in list(blocks_of(model, trained))[:-1]:
                undo.enter_context(_checkpointed(block, offload=offload))
        yield


@contextmanager
def _training_mode() -> Generator[None]:
    """ComfyUI 0.28's own switch: kernels that have a backward pass. Older ones have no other kernels."""
    before = getattr(comfy.model_management, "in_training", False)
    comfy.model_management.in_training = True
    try:
        yield
    finally:
        comfy.model_management.in_training = before


@contextmanager
def _forgetting(model: nn.Module) -> Generator[None]:
    """Inside and afterwards, nothing is left of another pass: see `kept_passes`."""
    if (forget := forgetting(model)) is None:
        yield
        return
    handle = model.get_submodule("diffusion_model").register_forward_pre_hook(lambda *_: forget())
    try:
        yield
    finally:
        handle.remove()
        forget()


def _settle_attention(device: torch.device) -> None:
    """Let torch choose which of its attention kernels it prefers.

    It does so in a process's first attention, over what ComfyUI prefers there: a block whose first attention that is
    would have another kernel when it is computed again (torch 2.11 on an H100).
    """
    if device.type == "cuda":
        query = torch.zeros(1, 1, 8, 64, dtype=torch.float16, device=device)
        torch.nn.functional.scaled_dot_product_attention(query, query, query)


def _thaw_bypasses(modules: Iterable[nn.Module]) -> None:
    """Copy what was made in inference mode of ComfyUI's own adapters beside weights (0.28)."""
    for module in modules:
        adapter: Any = getattr(getattr(module.forward, "__self__", None), "adapter", None)
        if isinstance(adapter, WeightAdapterBase):
            adapter.weights = tuple(w.clone() if _made_in_inference(w) else w for w in adapter.weights)


def _made_in_inference(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_inference()


def _cloned(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].clone(), *args[1:])


@contextmanager
def _checkpointed(block: nn.Module, *, offload: bool) -> Generator[None]:
    """Inside, the block keeps only its inputs; copies of them are what it may change in place."""
    before, forward = block.__dict__.get("forward"), block.forward

    def run(*args: Any, **named: Any) -> Any:
        args = tuple(_own(value) for value in args)
        return forward(*args, **{name: _own(value) for name, value in named.items()})

    if offload:
        block.forward = lambda *args, **named: offloaded_checkpoint(run, args, named)
    else:
        block.forward = lambda *args, **named: checkpoint(run, *args, use_reentrant=False, **named)
    try:
        yield
    finally:
        if before is None:
            del block.forward
        else:  # another extension had put one there
            block.forward = before


def _own(value: Any) -> Any:
    if isinstance(value, tuple):  # of streams
        return tuple(map(_own, value))
    return value.clone() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
