"""Where a model's weights are while it trains: on the device, or in the computer's memory until they are needed.

Where ComfyUI has room for the whole model, it loads it as it always does. Else it loads it into the computer's memory,
with patches in its weights as ever, and from there all but the blocks that are swapped is moved to the device.
ComfyUI's own partial load would copy each weight three times a step, for the forward pass, for the same again under
checkpointing, and for the gradient, and picks what it leaves out by size; a block that is swapped comes twice.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager

import comfy.model_management
import torch
from torch import Tensor, nn

from ....lyco_core.architectures import TrainedFamily
from ....lyco_core.errors import TrainError
from ....lyco_core.train.block_shard import BlockShard
from ....lyco_core.train.block_swap import BlockSwap, spread
from ....lyco_core.train.distributed import World
from ....lyco_core.train.estimate import Estimate, activations, width_of
from ....lyco_core.train.frozen import thaw
from ....lyco_core.train.memory_options import MemoryOptions
from ....lyco_core.train.swapped_block import known_parts
from ..model.merging import unload
from ..protocols import BaseModel, Linear, ModelPatcher
from .demand import Demand
from .float8 import WIDE, float8_size, in_float8, rounds
from .linears import blocks_of, linears_of

CPU = torch.device("cpu")

SHARED = ("cpu", "mps")
"""Devices whose memory is the computer's own: nothing is gained by what waits there."""

MARGIN = 1.05
"""How much more than the estimate has to be free, where `auto` decides: memory comes in pieces."""

Move = Callable[[nn.Module, AbstractSet[nn.Module], torch.device], None]
"""Has parameters and buffers of a model on a device, but for the weights of some modules."""


class Plan:
    """What of a model is rounded, what is swapped or divided over processes, and what that takes."""

    def __init__(
        self,
        model: BaseModel,
        trained: TrainedFamily,
        options: MemoryOptions,
        demand: Demand,
        world: World | None = None,
    ) -> None:
        self.model, self.options, self._demand = model, options, demand
        self.shared = world if options.shard_blocks else None
        """The processes that the blocks are divided over."""
        self.scaled = options.fp8_scaled
        known: dict[nn.Module, tuple[str, Linear]] = {found[1]: found for found in linears_of(model).items()}
        self.blocks = [[known[m] for m in block.modules() if m in known] for block in blocks_of(model, trained)]
        self.rounded: list[tuple[str, Linear]] = []
        if options.fp8_scaled or options.fp8_base:
            self.rounded = [found for block in self.blocks for found in block if rounds(*found)]
        if options.fp8_scaled and not self.rounded:
            raise TrainError("fp8_scaled: the model's blocks are quantized already; set fp8_scaled to false")
        small = {module: float8_size(module, scaled=self.scaled) for _, module in self.rounded}
        self._numbers = [sum(m.in_features * m.out_features for _, m in block) for block in self.blocks]
        self._sizes = [[small.get(m, stored_size(m.weight)) for _, m in block] for block in self.blocks]
        rest = sum(stored_size(tensor) for tensor in (*model.parameters(), *model.buffers()))
        self._all = rest - sum(stored_size(module.weight) - size for module, size in small.items())

    def swapped(self, count: float) -> list[int]:
        """Which blocks stay in the computer's memory if `count` of the largest do."""
        return spread(self._numbers, count) if count else []

    def coming(self, count: float) -> list[int]:
        """Which blocks come to the device while they are needed: those that are swapped, or all that are divided."""
        return [i for i, block in enumerate(self.blocks) if block] if self.shared else self.swapped(count)

    def estimate(self, count: float, dtype: torch.dtype, free: int = 0) -> Estimate:
        """What a step takes on the device with so many blocks swapped."""
        sizes = [sum(self._sizes[index]) for index in self.coming(count)]
        buffers = min(2, len(sizes)) * max(sizes, default=0)
        processes = self.shared.processes if self.shared else 1
        slices = sum(-(-size // processes) for size in sizes) if self.shared else 0
        widths = [width_of([(m.in_features, m.out_features) for _, m in block]) for block in self.blocks]
        offload = self.options.gradient_checkpointing_cpu_offload
        kept = activations(
            widths, self._demand.tokens, dtype.itemsize, checkpointing=self._demand.checkpointing, offload=offload
        )
        parts = self._demand.parts
        return Estimate(
            weights=self._all - sum(sizes) + slices + buffers,
            activations=kept + self._largest_cast(dtype),
            adapter=parts.get("adapter", 0),
            gradients=parts.get("gradients", 0),
            optimizer=parts.get("optimizer", 0),
            free=free,
            swapped=len(self.swapped(count)),
            blocks=len(self.blocks),
            processes=processes,
        )

    def count(self, dtype: torch.dtype, free: int) -> float:
        """How many blocks are swapped, of the largest. Raises `TrainError` for more than there are."""
        most = sum(self._numbers) / max(self._numbers) if self._numbers else 0
        asked = self.options.blocks_to_swap
        if asked == "auto":
            fits = (n for n in range(int(most) + 1) if self.estimate(n, dtype).total * MARGIN <= free)
            return next(fits, most)
        if int(asked) > round(most):
            raise TrainError(
                f"blocks_to_swap is {asked}, and the model has {round(most)} blocks (smaller ones count by their "
                "size); set blocks_to_swap to auto"
            )
        return min(float(asked), most)

    def _largest_cast(self, dtype: torch.dtype) -> int:
        """What the largest weight takes that is cast for its product."""
        small = {module for _, module in self.rounded}
        modules = [m for block in self.blocks for _, m in block]
        cast_ones = [m for m in modules if m in small or m.weight.dtype != dtype or m.weight.dtype not in WIDE]
        return max((m.in_features * m.out_features * dtype.itemsize for m in cast_ones), default=0)


def stored_size(weight: Tensor | None) -> int:
    """How many bytes a weight takes, whatever its class says of its shape; those that it tells, if nobody knows it."""
    if weight is None:
        return 0
    parts = known_parts(weight)
    return sum(part.nbytes for part in parts[0]) if parts else weight.nbytes


@contextmanager
def placed(
    clone: ModelPatcher, plan: Plan, dtype: torch.dtype, tell: Callable[[Estimate], None]
) -> Generator[BlockSwap | None]:
    """Inside, a patcher's model is loaded as planned; everything else of ComfyUI's is off the device.

    Args:
        tell: told what is needed, before anything is loaded.
    """
    device = clone.load_device
    free = emptied(device)
    whole = plan.shared or (plan.options.blocks_to_swap == "auto" and device.type in SHARED)
    count = 0 if whole else plan.count(dtype, free)
    tell(plan.estimate(count, dtype, free))
    if not plan.coming(count) and not plan.rounded:
        comfy.model_management.load_models_gpu([clone], force_full_load=True)
        yield None
        return
    with in_parts(clone, plan, count) as swap:
        yield swap


def emptied(device: torch.device) -> int:
    """How many bytes are free on a device for a training, once everything of ComfyUI's is off it."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    return free_on(device)


@contextmanager
def in_parts(clone: ModelPatcher, plan: Plan, count: float, move: Move | None = None) -> Generator[BlockSwap | None]:
    """Inside, what of a patcher's model is swapped is in the computer's memory, and the rest on its device.

    Args:
        move: how it comes there.
    """
    device = clone.load_device
    with ExitStack() as undo:
        # Of what is loaded onto the CPU, `unload_all_models` takes nothing off where there is a GPU.
        undo.callback(unload, clone, CPU)
        _load_into_memory(clone)
        thaw(clone.model)
        undo.enter_context(in_float8(plan.rounded, device, scaled=plan.scaled))
        stay = [[module for _, module in plan.blocks[index]] for index in plan.coming(count)]
        staying = {module for block in stay for module in block}
        (move or _move)(clone.model, staying, device)
        if plan.shared:
            yield BlockShard(stay, device, plan.shared)
            return
        for module in staying:
            pinned(module, undo)
        yield BlockSwap(stay, device) if stay else None


@contextmanager
def moved_off(patcher: ModelPatcher, swap: BlockSwap | None, *, apart: bool) -> Generator[None]:
    """Inside, if `apart`, what of a placed model is on its device waits in the computer's memory."""
    stays = swap.modules if swap else ()
    if apart:
        _move(patcher.model, set(stays), CPU)
        comfy.model_management.soft_empty_cache()
    try:
        yield
    finally:
        if apart:
            _move(patcher.model, set(stays), patcher.load_device)


def free_on(device: torch.device) -> int:
    """How many bytes are free on a device for a training, beside what ComfyUI leaves to other programs."""
    reserved = comfy.model_management.extra_reserved_memory()
    return max(0, int(comfy.model_management.get_free_memory(device) - reserved))


def _load_into_memory(clone: ModelPatcher) -> None:
    """Load a patcher's model into the computer's memory, with its patches as the device computes them."""
    device = clone.load_device
    for key in clone.patches:
        module = clone.model.get_submodule(key.rpartition(".")[0])
        clone.patch_weight_to_device(key, device_to=device)
        module.to(CPU)
        vars(module)["comfy_patched_weights"] = True  # else ComfyUI patches it once more
    clone.load_device = CPU
    try:
        comfy.model_management.load_models_gpu([clone], force_full_load=True)
    finally:
        clone.load_device = device


def _move(model: nn.Module, without: AbstractSet[nn.Module], device: torch.device) -> None:
    """Move parameters and buffers to a device, but for the weights of some modules."""
    for module in model.modules():
        stays = module.weight if module in without else None

        def moved(tensor: Tensor, stays: object = stays) -> Tensor:
            return tensor if tensor is stays else tensor.to(device)

        module._apply(moved, recurse=False)  # pyright: ignore[reportPrivateUsage]


def pinned(module: Linear, undo: ExitStack) -> None:
    """Have a weight's memory stay where it is, from where a device takes it by itself, if ComfyUI has room for that."""
    pin = getattr(comfy.model_management, "pin_memory", None)  # 0.3.64 has none
    if pin is not None and pin(module.weight):
        undo.callback(comfy.model_management.unpin_memory, module.weight)
