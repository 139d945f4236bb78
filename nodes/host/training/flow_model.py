"""A ComfyUI model as the loop sees it: what predicts a velocity."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from ....lyco_core.architectures import TrainedFamily
from ....lyco_core.errors import TrainError
from ....lyco_core.train.block_shard import BlockShard
from ....lyco_core.train.block_swap import BlockSwap
from ....lyco_core.train.distributed import World
from ....lyco_core.train.estimate import Estimate
from ....lyco_core.train.memory_options import MemoryOptions
from ....lyco_core.train.options import RunOptions
from ....lyco_core.train.process import Process
from ....lyco_core.train.targets import require_trainable
from ..model.matching import model_weights
from ..model.merging import standing
from ..protocols import Conditioning, ModelPatcher
from .conditions import forward_arguments, groups, together
from .demand import Demand
from .differentiable import ATTENTION, differentiable
from .placing import Plan, moved_off, placed
from .process import process_of

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""`mixed_precision` -> what the model computes in; `auto` leaves it."""


class FlowModel:
    """`lyco_core.train.velocity.VelocityModel` over a loaded ModelPatcher."""

    def __init__(self, patcher: ModelPatcher, guidance: float, process: Process) -> None:
        self.patcher, self.model = patcher, patcher.model
        self.patchers, self.models = (patcher,), (self.model,)
        """Those that a network is trained in."""
        self.device: torch.device = patcher.load_device
        cast: Any = patcher.get_model_object("manual_cast_dtype")  # as it is once a mixed_precision is set on it
        self.dtype: torch.dtype = cast or self.model.get_dtype()
        self.swap: BlockSwap | None = None
        """The blocks that are not on the device all the time."""
        self.process = process
        """How its sampler has its noise."""
        self._guidance = guidance

    @property
    def shard(self) -> BlockShard | None:
        """The blocks that are divided over the processes."""
        return self.swap if isinstance(self.swap, BlockShard) else None

    def turn(self, t: Tensor) -> None:
        """See `loop.Training`: one model computes at all timesteps."""

    def parts(self, sigmas: Tensor) -> list[tuple[FlowModel, Tensor]]:
        """Which model samples which part of a sampler's way, in their order: this one all of it."""
        return [(self, sigmas)]

    def aside(self, *, apart: bool) -> AbstractContextManager[None]:
        """Inside, if `apart`, the device has room for something else."""
        return moved_off(self.patcher, self.swap, apart=apart)

    def latent(self, latent: Tensor) -> Tensor:
        """(C, …) of a VAE as this model takes it; an image becomes one frame for models of videos."""
        latent = latent.detach().clone().to("cpu", torch.float32)[None]
        if latent.dim() == 4 and self.model.latent_format.latent_dimensions == 3:
            latent = latent.unsqueeze(2)
        return self.model.process_latent_in(latent)[0]

    def groups(self, conditions: Sequence[Conditioning]) -> list[list[int]]:
        """See `velocity.VelocityModel`."""
        return groups(conditions)

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Conditioning]) -> Tensor:
        """See `velocity.VelocityModel`; of the output of the diffusion model itself, before ComfyUI makes x_0 of it."""
        arguments = together(
            [forward_arguments(self.model, c, x[i : i + 1], self._guidance) for i, c in enumerate(conditions)]
        )
        said: list[Any] = []
        handle = self.model.diffusion_model.register_forward_hook(
            lambda _, args, output: said.extend((output, args[0]))
        )
        try:
            self.model.apply_model(x, t, transformer_options=dict(ATTENTION), **arguments)
        finally:
            handle.remove()
        output, given = said
        return self.process.predicted(output.float(), given, t)


@contextmanager
def loaded(
    patcher: ModelPatcher,
    run: RunOptions,
    memory: MemoryOptions | None = None,
    demand: Demand | None = None,
    tell: Callable[[Estimate], None] = lambda _: None,
    world: World | None = None,
) -> Generator[FlowModel]:
    """A clone of `patcher` on its device, ready for gradients; everything else is moved out of its way.

    Args:
        memory: what of it is where; without, all is on the device.
        demand: what is needed beside it.
        tell: told how much memory a step takes, before the model is loaded.
        world: the processes that its blocks are divided over, if they are.

    Raises:
        TrainError: it is not known what its output is, or it is of a family that is not trained, or runs on several
            GPUs; or it has fewer blocks than are to be swapped.
    """
    clone, trained = own_clone(patcher, run)
    memory, demand = memory or MemoryOptions(blocks_to_swap=0), demand or Demand()
    with torch.inference_mode(False):
        flow = FlowModel(clone, run.guidance_scale, process_of(patcher, trained))
        plan = Plan(clone.model, trained, memory, demand, world)
        with placed(clone, plan, flow.dtype, tell) as flow.swap, computing(flow, clone, trained, run, memory):
            yield flow


def own_clone(patcher: ModelPatcher, run: RunOptions) -> tuple[ModelPatcher, TrainedFamily]:
    """A clone of `patcher` to be trained on, and how its family is trained; see `loaded` for what it raises."""
    _require_one_gpu(patcher)
    _, trained = require_trainable(model_weights(patcher).architecture)
    clone = standing(patcher, "load the model with ComfyUI's own loader").clone()
    if run.mixed_precision in DTYPES:
        clone.set_model_compute_dtype(DTYPES[run.mixed_precision])
    return clone, trained


@contextmanager
def computing(
    flow: FlowModel, clone: ModelPatcher, trained: TrainedFamily, run: RunOptions, memory: MemoryOptions
) -> Generator[None]:
    """Inside, the model of a clone, which is where it is to be, computes as ComfyUI samples it, and gradients too."""
    clone.pre_run()
    try:
        offload, kept = memory.gradient_checkpointing_cpu_offload, run.gradient_checkpointing
        with differentiable(clone, trained, flow.dtype, checkpointing=kept, offload=offload, swap=flow.swap):
            yield
    finally:
        clone.cleanup()


def _require_one_gpu(patcher: ModelPatcher) -> None:
    if getattr(patcher, "get_additional_models_with_key", None) and patcher.get_additional_models_with_key("multigpu"):
        raise TrainError("the model is spread over several GPUs; take the multi-GPU node away, or train with torchrun")
